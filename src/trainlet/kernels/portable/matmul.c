/* y = op(a) op(b): TL_LANES columns of CHUNK rows of op(b) are packed to a panel, swept over the rows of op(a).
 *
 * scratch: panel f32 [CHUNK][lanes]; y itself holds the sums.
 */
#include "tl_matmul.h"

#include "tl_block.h"

enum { CHUNK = TL_CONV_SCRATCH_BYTES / 4 / TL_LANES };

typedef struct {
  int32_t m, k, n, trans_a, trans_b;
  float *panel;
} product;

/* panel[i][j] = op(b)[first + i][col + j], 0 beyond width. */
static void load_panel(const product *q, const float *b, int32_t first, int32_t count, int32_t col, int32_t width) {
  int32_t row_stride = q->trans_b ? 1 : q->n, col_stride = q->trans_b ? q->k : 1;
  for (int32_t i = 0; i < count; i++) {
    const float *from = b + ((first + i) * row_stride + col * col_stride);
    for (int32_t j = 0; j < TL_LANES; j++) q->panel[i * TL_LANES + j] = j < width ? from[j * col_stride] : 0.0f;
  }
}

static void sweep_rows(const product *q, const float *a, int32_t first, int32_t count, float *y, int32_t width) {
  int32_t row_stride = q->trans_a ? 1 : q->k, step = q->trans_a ? q->m : 1;
  for (int32_t row = 0; row < q->m; row += TL_ROWS) {
    int32_t rows = tl_min(TL_ROWS, q->m - row);
    tl_f32_lanes acc[TL_ROWS] = {{0}};
    const float *x[TL_ROWS];
    for (int32_t r = 0; r < TL_ROWS; r++) {
      x[r] = a + ((row + tl_min(r, rows - 1)) * row_stride + first * step);
      if (first > 0 && r < rows) tl_get_f32(&acc[r], y + (row + r) * q->n, width);
    }
    tl_block_f32(acc, x, step, q->panel, count);
    for (int32_t r = 0; r < rows; r++) tl_put_f32(y + (row + r) * q->n, &acc[r], width);
  }
}

void tl_matmul_f32(int32_t batch, int32_t m, int32_t k, int32_t n, int32_t trans_a, int32_t trans_b, const float *a,
                   int32_t a_batch_stride, const float *b, int32_t b_batch_stride, float *y, int32_t y_batch_stride,
                   void *scratch) {
  const product q = {m, k, n, trans_a, trans_b, scratch};
  for (int32_t i = 0; i < batch; i++)
    for (int32_t col = 0; col < n; col += TL_LANES)
      for (int32_t first = 0; first < k; first += CHUNK) {
        int32_t count = tl_min(CHUNK, k - first), width = tl_min(TL_LANES, n - col);
        load_panel(&q, b + i * b_batch_stride, first, count, col, width);
        sweep_rows(&q, a + i * a_batch_stride, first, count, y + (i * y_batch_stride + col), width);
      }
}
