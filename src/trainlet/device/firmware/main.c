/* Trains an emitted program with samples that arrive in a file, and sends back what came of it.
 *
 * job.bin     the struct job below; one sample; then per step: f32 learning rate, labels, samples
 * result.bin  the outputs of the first sample; then per step: f32 loss, outputs; then the state, u32 stack bytes used
 *
 * With TL_KEEP the state is saved every `save_every` steps, and a boot goes on behind the record it finds: result.bin
 * begins with u32 status of the load, u32 steps that lie behind, the state, and ends with u32 flash operations.
 *
 * program_config.h, written for each program, names its functions and sizes.
 */
#include "board.h"
#include "keep.h"
#include "program_config.h"
#include "semihosting.h"

enum { EXIT_INPUT = 3, EXIT_SAVE = 5 };

typedef struct {
  uint32_t steps, calls_per_update, seed;
  uint32_t save_every, cut_at, tear; /* steps; operation of the flash; keep.h */
} job;

/* The program's memory, at the end of RAM: padded in front so that it ends where the fence can stand. */
static struct {
  uint8_t pad[(32 - sizeof(TL_CONTEXT) % 32) % 32];
  TL_CONTEXT program;
} memory __attribute__((aligned(32), section(".program_context")));

static float outputs[TL_OUTPUTS];
static uint32_t labels[(TL_LABEL_BYTES + 3) / 4];

/* Samples come by rows when the program asks; or straight to where it keeps them, if its author could say where that is. */
#ifdef TL_ROW_BYTES
#include "image.h"
static const TL_IMAGE image = {tl_image_rows, 0};
#define PREDICT_SAMPLE &image
#define TRAIN_SAMPLES &image
#elif defined(TL_TRAIN_INPUT)
#define PREDICT_SAMPLE (void *)((uint8_t *)memory.program.arena + TL_PREDICT_INPUT)
#define TRAIN_SAMPLES (void *)((uint8_t *)memory.program.arena + TL_TRAIN_INPUT)
#else
static uint32_t samples[(TL_BATCH * TL_SAMPLE_BYTES + 3) / 4];
#define PREDICT_SAMPLE (void *)samples
#define TRAIN_SAMPLES (void *)samples
#endif

static int32_t in, out;

static void get(void *to, uint32_t size) {
  if (tl_file_read(in, to, size) != 0) {
    tl_console("job.bin is too short\n");
    tl_exit(EXIT_INPUT);
  }
}

#ifdef TL_ROW_BYTES
static void begin_samples(const void *to, uint32_t size) {
  (void)to;
  tl_image_begin(in, size);
}
static void end_samples(void) { tl_image_end(); }
#else
static void begin_samples(void *to, uint32_t size) { get(to, size); }
static void end_samples(void) {}
#endif

static void put(const void *from, uint32_t size) {
  if (tl_file_write(out, from, size) != 0) tl_exit(EXIT_INPUT);
}

static void put_number(uint32_t x) { put(&x, sizeof x); }

static void train_once(float lr, int update) {
#ifdef TL_APPLY
  const float loss = TL_TRAIN(&memory.program, TRAIN_SAMPLES, (const void *)labels);
#else
  const float loss = TL_TRAIN(&memory.program, TRAIN_SAMPLES, (const void *)labels, lr);
#endif
  put(&loss, sizeof loss);
  put(TL_LOGITS(&memory.program), TL_BATCH * sizeof outputs);
#ifdef TL_APPLY
  if (update) TL_APPLY(&memory.program, lr);
#else
  (void)update;
#endif
}

/* The steps from `first` on; what lies before them is read and passed over. */
static void train(const job *j, uint32_t first) {
  for (uint32_t step = 0; step < j->steps; step++) {
    float lr;
    get(&lr, sizeof lr);
    get(labels, TL_LABEL_BYTES);
    begin_samples(TRAIN_SAMPLES, TL_BATCH * TL_SAMPLE_BYTES);
    if (step >= first) train_once(lr, (step + 1) % j->calls_per_update == 0);
    end_samples();
#ifdef TL_KEEP
    if (step < first || (step + 1) % j->save_every != 0) continue;
    if (tl_keep_save(memory.program.state) != 0) tl_exit(EXIT_SAVE);
#endif
  }
}

/* Steps that lie behind, by the record in flash: the factory state is its number 0. */
static uint32_t resume(const job *j) {
#ifdef TL_KEEP
  uint32_t status;
  const uint32_t first = tl_keep_load(memory.program.state, j->cut_at, j->tear, &status) * j->save_every;
  put_number(status);
  put_number(first);
  put(memory.program.state, TL_STATE_BYTES);
  return first;
#else
  (void)j;
  return 0;
#endif
}

void tl_main(void) {
  job j;
  in = tl_file_open("job.bin", 7, TL_FILE_READ);
  out = tl_file_open("result.bin", 10, TL_FILE_WRITE);
  if (in < 0 || out < 0) {
    tl_console("job.bin or result.bin cannot be opened\n");
    tl_exit(EXIT_INPUT);
  }
  get(&j, sizeof j);
  TL_INIT(&memory.program, j.seed);
  const uint32_t first = resume(&j);
  begin_samples(PREDICT_SAMPLE, TL_SAMPLE_BYTES);
  TL_PREDICT(&memory.program, PREDICT_SAMPLE, outputs);
  end_samples();
  put(outputs, sizeof outputs);
  train(&j, first);
  put(memory.program.state, TL_STATE_BYTES);
  put_number(tl_stack_used());
#ifdef TL_KEEP
  put_number(tl_keep_operations());
#endif
  tl_file_close(in);
  tl_file_close(out);
  tl_exit(0);
}

/* The member of the context at an address, or the last that ends before it. */
const char *tl_context_part(uint32_t at, uint32_t *offset) {
  static const char *const names[] = {"scratch", "arena", "state"};
  const uint32_t starts[] = {(uint32_t)memory.program.scratch, (uint32_t)memory.program.arena,
                             (uint32_t)memory.program.state};
  const uint32_t sizes[] = {sizeof memory.program.scratch, sizeof memory.program.arena, sizeof memory.program.state};
  int last = -1;
  for (int i = 0; i < 3; i++) {
    if (at >= starts[i] && (last < 0 || starts[i] > starts[last])) last = i;
  }
  if (last < 0) {
    *offset = at - (uint32_t)tl_bss_start;
    return "firmware's own variables";
  }
  *offset = at - starts[last];
  if (*offset >= sizes[last]) *offset -= sizes[last];
  return names[last];
}
