/* Whether this processor has what the program was compiled for. */
#ifndef TL_CHECK_H
#define TL_CHECK_H

/* The name of an instruction set extension that is missing, NULL where all are there. Call it before anything else of
 * the program: the function itself needs none. */
const char *tl_missing_feature(void);

#endif
