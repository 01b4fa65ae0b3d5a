/* Reading weights: whatever they are stored as, with the trained subset laid over, in runs that a kernel wants.
 *
 * Every kernel reads through these, so each has one body for all kinds of weights.
 */
#ifndef TL_WEIGHTS_H
#define TL_WEIGHTS_H

#include "tl_types.h"

/* Row `row`, columns col .. col+count-1 of [o][taps * c] to out[0], out[step], ...   c: input channels of a group. */
void tl_load_weights(const tl_weights *w, int32_t taps, int32_t c, int32_t row, int32_t col, int32_t count, float *out,
                     int32_t step);
void tl_load_weights_s16(const tl_weights *w, int32_t taps, int32_t c, int32_t row, int32_t col, int32_t count,
                         int16_t *out, int32_t step);

/* TL_LANES rows from `row` on, transposed: panel[count][TL_LANES], lanes beyond `width` 0. */
void tl_load_panel_s16(const tl_weights *w, int32_t taps, int32_t c, int32_t row, int32_t width, int32_t col,
                       int32_t count, int16_t *panel);

/* Depthwise: the taps of one channel to out[0], out[step], ... */
void tl_load_taps(const tl_weights *w, int32_t taps, int32_t channel, float *out, int32_t step);
void tl_load_taps_s16(const tl_weights *w, int32_t taps, int32_t channel, int16_t *out, int32_t step);

/* bias[o + j] to out[j], 0 for width <= j < lanes; as integers, a float rounded half to even and saturated. */
void tl_load_bias_s32(const tl_bias *b, int32_t o, int32_t width, int32_t lanes, int32_t *out);

/* The same as floats. */
void tl_load_bias(const tl_bias *b, int32_t o, int32_t width, int32_t lanes, float *out);

#endif
