/* Matrix products in fp32, register-blocked, for the shapes convolutions have: M in the thousands, K and N small.
 *
 *   sum[i][j] = sum_p a[i * a_row + p * a_depth] * b[p][j]          then tl_finish.h, or an update
 *
 * Each element is summed over p ascending, products contracted (one rounding) where the target can, whatever the
 * number of threads. b is packed: panels side by side, columns j0 .. j0+w-1 as [k][w], w = TL_VL * tl_panel_vectors of
 * the registers that remain, lanes beyond n are 0. Or, with ldb > 0, b is as it is, [k][ldb]; then up to TL_VL - 1 floats
 * behind its last row are read (not used) where n is no multiple of TL_VL.
 */
#ifndef TL_GEMM_H
#define TL_GEMM_H

#include "tl_finish.h"
#include "tl_update.h"

typedef struct {
  const float *a;
  const float *b;
  float *c;                /* [m][ldc]; with masks or an update ldc == n */
  int32_t m, k, n;
  int32_t a_row, a_depth;  /* in floats; one of them is 1 */
  int32_t ldb, ldc;        /* ldb 0: panels */
  int32_t depth;           /* p summed at once, the sums then wait in c; 0: all that the caches like */
  int32_t onto;            /* c holds sums that these are added to */
  tl_finish finish;        /* its add is indexed like c */
  const tl_update *update; /* NULL, or what takes the sums instead of c: [m][n]; c is then scratch */
} tl_gemm;

/* A tl_part over the rows of a tl_gemm. */
void tl_gemm_rows(const void *gemm, int32_t part, int32_t parts);

/* A tl_part over the columns; b as it is. For products whose m is small: weight gradients. */
void tl_gemm_columns(const void *gemm, int32_t part, int32_t parts);

/* A tl_part over chunks of p (tl_chunks.h); c: [TL_CHUNKS][m][ldc], for tl_chunks_part. No finish, no update. */
void tl_gemm_chunks(const void *gemm, int32_t part, int32_t parts);

/* Rows first .. last-1; first a multiple of 8 where there is a mask. */
void tl_gemm_range(const tl_gemm *g, int32_t first, int32_t last);

typedef struct {
  const float *w;     /* [n][ldw] (turn), or [k][ldw] */
  float *panels;      /* k * (n rounded up to TL_VL) */
  int32_t k, n, ldw;
  int32_t turn;
} tl_pack;

/* A tl_part over the panels of a tl_pack. */
void tl_pack_panels(const void *pack, int32_t part, int32_t parts);

/* Vectors of the panel that begins when `left` vectors remain: 3, 2 or 1, never leaving a lone one behind 3. */
static inline int32_t tl_panel_vectors(int32_t left) { return left == 4 ? 2 : left < 3 ? left : 3; }

/* Bounds of part `part` of n columns, each at the start of a panel: only the last four vectors are not in threes. */
static inline int32_t tl_panel_bound(int32_t n, int32_t part, int32_t parts) {
  int32_t vectors = (n + TL_VL - 1) / TL_VL, threes = vectors < 2 ? 0 : (vectors - 2) / 3;
  return part == parts ? n : threes * part / parts * 3 * TL_VL;
}

#endif
