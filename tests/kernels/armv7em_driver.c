/* Runs the kernels that Armv7E-M has bodies for on pseudo-random layers and prints a hash of each result.
 *
 * On a host an ordinary program; for a Cortex-M start-up and console (semihosting to the host's stdout) are here.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tl_hidden.h"

enum { MOST = 20000 };

static uint32_t state = 1;
static int8_t x[MOST], y[MOST], w[MOST], trained[MOST];
static float dy[MOST], dx[MOST];
static uint8_t mask[MOST / 8];
static double scratch[1024];

static uint32_t draw(void) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

static float draw_float(void) { return (float)(int32_t)(draw() >> 8) * (1.0f / 8388608.0f) - 1.0f; }

static uint32_t hash(const void *data, size_t size) {
  const uint8_t *bytes = data;
  uint32_t h = 2166136261u;
  for (size_t i = 0; i < size; i++) h = (h ^ bytes[i]) * 16777619u;
  return h;
}

static void print(const char *text);

static size_t length_of(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  return length;
}

static void report(const char *name, const void *data, int32_t size) {
  char line[64];
  size_t length = length_of(name);
  uint32_t h = hash(data, (size_t)size);
  memcpy(line, name, length);
  line[length++] = ' ';
  for (int shift = 28; shift >= 0; shift -= 4) line[length++] = "0123456789abcdef"[(h >> shift) & 15u];
  line[length++] = '\n';
  line[length] = 0;
  print(line);
}

static void draw_all(void) {
  for (int i = 0; i < MOST; i++) {
    x[i] = (int8_t)draw();
    w[i] = (int8_t)draw();
    trained[i] = (int8_t)draw();
    dy[i] = draw_float();
    dx[i] = draw_float();
  }
}

/* All kernels of one layer; k > 0: channels 1, 3, 5, ... are trained. */
static void layer(int32_t h, int32_t c, int32_t o, int32_t kernel, int32_t stride, int32_t groups, int32_t k) {
  static uint16_t channels[256];
  static float scale[1024], grad[MOST];
  static int32_t bias[1024];
  const int32_t out = (h - 1) / stride + 1, positions = out * out;
  const int32_t pad = kernel / 2;
  const tl_conv_shape s = {1, h, h, c, out, out, o, kernel, kernel, stride, stride, pad, pad, 1, 1, groups};
  const int depthwise = groups > 1;
  for (int32_t j = 0; j < k; j++) channels[j] = (uint16_t)(2 * j + 1);
  for (int32_t j = 0; j < o; j++) {
    scale[j] = (draw_float() + 1.5f) * 0.001f;
    bias[j] = (int32_t)draw() >> 18;
  }
  draw_all();
  const tl_weights weights = {TL_W_S8, w, k ? trained : NULL, TL_W_S8, channels, k, 0};
  const tl_bias b = {bias, NULL};
  (depthwise ? tl_depthwise_s8 : tl_conv_s8)(&s, x, -3, &weights, &b, scale, 4, y, mask, scratch);
  report("y", y, positions * o);
  report("mask", mask, TL_MASK_BYTES(positions * o));
  tl_requantize_grad(dy, dy, mask, scale, positions, o);
  report("masked", dy, positions * o * 4);
  const tl_update store = {.rule = TL_STORE, .w = grad, .row_len = kernel * kernel * c};
  const tl_grad_x saved = {x, NULL, -3, c};
  tl_bias_grad(positions, o, dy, &store, scratch);
  report("bias", grad, o * 4);
  if (!depthwise && o * kernel * kernel * c <= MOST) {
    tl_conv_weight_grad(&s, &saved, dy, &store, scratch);
    report("dw", grad, o * kernel * kernel * c * 4);
  }
  if (depthwise && stride == 1) {
    static double copies[1024]; /* for the channels of an image */
    tl_depthwise_s8(&s, x, -3, &weights, &b, scale, 4, x, mask, copies);
    report("y in place", x, positions * o);
    report("its mask", mask, TL_MASK_BYTES(positions * o));
  }
  (depthwise ? tl_depthwise_input_grad : tl_conv_input_grad)(&s, dy, &weights, dx, 1, scratch);
  report("dx", dx, h * h * c * 4);
  if (!depthwise) {
    const int32_t first = c / 3, count = c - first - c / 5;
    tl_conv_input_grad_slice(&s, dy, &weights, first, count, dx, scratch);
    report("slice", dx, h * h * count * 4);
  }
  if (depthwise && stride == 1) {
    tl_depthwise_input_grad_inplace(&s, dy, &weights, scratch);
    report("in place", dy, h * h * c * 4);
  }
}

/* A block of a network: 1x1, depthwise, 1x1, whole and by groups of channels. */
static void block(int32_t h, int32_t c, int32_t hidden, int32_t kernel, int32_t stride, int32_t group) {
  static float scale[256], work[MOST];
  static int8_t bias[256];
  const int32_t out = (h - 1) / stride + 1, pad = kernel / 2;
  const tl_conv_shape reader = {1, out, out, hidden, out, out, c, 1, 1, 1, 1, 0, 0, 1, 1, 1};
  const tl_conv_shape depthwise = {1,      h,      h,   hidden, out, out, hidden, kernel,
                                   kernel, stride, stride, pad, pad, 1,   1,      hidden};
  const tl_conv_shape maker = {1, h, h, c, h, h, hidden, 1, 1, 1, 1, 0, 0, 1, 1, 1};
  for (int32_t j = 0; j < hidden; j++) scale[j] = (draw_float() + 1.5f) * 0.1f;
  draw_all();
  for (int i = 0; i < MOST / 8; i++) mask[i] = (uint8_t)draw();
  const tl_weights weights = {TL_W_S8, w, NULL, TL_W_S8, NULL, 0, 0};
  const tl_grad_x saved = {x, NULL, -3, c};
  const tl_update rows = {.rule = TL_SGD, .master = TL_STOCHASTIC, .stored = TL_T_S8, .w = trained,
                          .row_len = c, .row_scale = scale, .lr = 5.0f, .seed = 7, .step = 1, .stream = 2};
  const tl_update biases = {.rule = TL_SGD, .master = TL_STOCHASTIC, .stored = TL_T_S8, .w = bias,
                            .row_len = hidden, .row_scale = scale, .lr = 5.0f, .seed = 7, .step = 1, .stream = 3};
  const tl_hidden_chain chain = {
      .group = group,
      .reader = {.shape = &reader, .weights = &weights},
      .inner = {.mask = mask, .scale = scale, .bias = &biases},
      .depthwise = {.shape = &depthwise, .weights = &weights},
      .outer = {.mask = mask + 1, .factor = 0.5f},
      .maker = {.shape = &maker, .weights = &weights, .x = &saved, .update = &rows},
      .overwrite = stride == 1};
  memset(bias, 0, sizeof bias);
  tl_hidden_grad(&chain, dy, dx, 1, work, scratch);
  report("block dx", dx, h * h * c * 4);
  report("block dw", trained, hidden * c);
  report("block bias", bias, hidden);
}

static void run(void) {
  block(6, 8, 48, 3, 1, 48);
  block(6, 8, 48, 3, 1, 16);
  block(7, 5, 41, 5, 2, 16);
  layer(15, 3, 16, 3, 2, 1, 0);
  layer(8, 48, 24, 1, 1, 1, 0);
  layer(4, 160, 33, 1, 1, 1, 70);
  layer(5, 40, 12, 3, 1, 1, 0);
  layer(7, 21, 21, 3, 1, 21, 0);
  layer(8, 16, 16, 7, 1, 16, 5);
  layer(9, 12, 12, 5, 2, 12, 0);
  layer(6, 3, 3, 3, 1, 3, 0);
  layer(10, 10, 10, 9, 1, 10, 0);
}

#ifdef __arm__

static int32_t semihosting(uint32_t operation, const void *argument) {
  register uint32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return (int32_t)r0;
}

static void print(const char *text) {
  static int32_t out = -1;
  const uint32_t console[3] = {(uint32_t)":tt", 4, 3}; /* opened for writing it is stdout */
  if (out < 0) out = semihosting(1, console);
  const uint32_t data[3] = {(uint32_t)out, (uint32_t)text, length_of(text)};
  semihosting(5, data);
}

void reset(void);
void reset(void) {
  const uint32_t done[2] = {0x20026, 0};
  *(volatile uint32_t *)0xE000ED88 |= 0xf << 20; /* the FPU on */
  __asm__ volatile("dsb\nisb");
  state = 1;
  run();
  semihosting(0x20, done);
  for (;;) {
  }
}

__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {(void *)0x20100000, (void *)reset};

#else

#include <stdio.h>

static void print(const char *text) { fputs(text, stdout); }

int main(void) {
  run();
  return 0;
}

#endif
