/* The command line of a training program. Reads samples from a data file (dataset.py writes one), trains, reports.
 *
 *   NAME info                                       what the program is
 *   NAME train DATA [--epochs 5] [--lr 0.01] [--seed 0] [--constant] [--in-order] [--load S] [--save S]
 *   NAME eval  DATA [--load S]                      accuracy on the test part
 *
 * The rate falls from lr along half a cosine (--constant: stays); samples come in an order drawn from the seed
 * (--in-order: as stored); those that do not fill a batch wait for the next epoch. A state file holds what was
 * trained. All memory of the network is one static struct; besides it, a batch and the order of samples.
 *
 * Data file, little endian: "TLDATA1\n", u32 sample type (0 float, 1 int8), u32 elements a sample, u32 label type
 * (0 int32 class, 1 float), u32 elements a label, u64 training samples, u64 test samples; then all samples, channels
 * last, training part first; then all labels. State file: "TLSTATE1", u64 id of the program, u64 bytes, the bytes. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifndef _WIN32
#include <sys/resource.h>
#endif

#include "standalone.h" /* names, types and sizes of the program at hand */

typedef struct {
  FILE *file;
  uint64_t train, test;
} data_t;

typedef struct {
  const char *command, *data, *load, *save;
  int epochs, constant, in_order;
  double lr;
  uint64_t seed;
} options_t;

static NET_T net __attribute__((aligned(64)));
static SAMPLE_T samples[BATCH * SAMPLE_ELEMENTS] __attribute__((aligned(64)));
static LABEL_T labels[BATCH * LABEL_ELEMENTS];
static float outputs[OUTPUTS];

static void fail(const char *what, const char *which) {
  fprintf(stderr, "error: %s%s\n", what, which);
  exit(1);
}

static double seconds(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void read_exactly(FILE *file, void *to, size_t bytes, const char *path) {
  if (fread(to, 1, bytes, file) != bytes) fail("the file ends too soon: ", path);
}

static data_t open_data(const char *path) {
  data_t d = {fopen(path, "rb"), 0, 0};
  char magic[8];
  uint32_t form[4];
  uint64_t counts[2];
  if (!d.file) fail("cannot open ", path);
  read_exactly(d.file, magic, sizeof magic, path);
  if (memcmp(magic, "TLDATA1\n", 8)) fail("no data file of trainlet: ", path);
  read_exactly(d.file, form, sizeof form, path);
  read_exactly(d.file, counts, sizeof counts, path);
  if (form[0] != SAMPLE_TYPE || form[1] != SAMPLE_ELEMENTS || form[2] != LABEL_TYPE || form[3] != LABEL_ELEMENTS)
    fail("samples or labels are of another type or size than the program's: ", path);
  if (fseeko(d.file, 0, SEEK_END)) fail("cannot read ", path);
  d.train = counts[0];
  d.test = counts[1];
  const uint64_t each = sizeof(SAMPLE_T) * SAMPLE_ELEMENTS + sizeof(LABEL_T) * LABEL_ELEMENTS;
  if ((uint64_t)ftello(d.file) != 40 + (d.train + d.test) * each) fail("the file is damaged: ", path);
  return d;
}

/* Sample and label `index`, of both parts counted together, into place `at` of the batch. */
static void fetch(const data_t *d, uint64_t index, size_t at, const char *path) {
  const uint64_t sample = sizeof(SAMPLE_T) * SAMPLE_ELEMENTS, label = sizeof(LABEL_T) * LABEL_ELEMENTS;
  LABEL_T *const y = labels + at * LABEL_ELEMENTS;
  if (fseeko(d->file, (off_t)(40 + index * sample), SEEK_SET)) fail("cannot read ", path);
  read_exactly(d->file, samples + at * SAMPLE_ELEMENTS, sample, path);
  if (fseeko(d->file, (off_t)(40 + (d->train + d->test) * sample + index * label), SEEK_SET))
    fail("cannot read ", path);
  read_exactly(d->file, y, label, path);
#if CLASSIFIES
  if (*y < 0 || *y >= OUTPUTS) fail("a label is no class of the network: ", path);
#endif
}

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
  uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

static void shuffle(uint32_t *order, uint64_t count, uint64_t seed, int epoch) {
  uint64_t state = seed * 0x100000001b3ull + (uint64_t)epoch;
  for (uint64_t i = count; i > 1; i--) {
    const uint64_t j = next_random(&state) % i;
    const uint32_t kept = order[i - 1];
    order[i - 1] = order[j];
    order[j] = kept;
  }
}

static int largest(const float *row) {
  int best = 0;
  for (int i = 1; i < OUTPUTS; i++)
    if (row[i] > row[best]) best = i;
  return best;
}

/* Samples of the batch whose largest output was their label. */
static int right_answers(void) {
  int right = 0;
#if CLASSIFIES
  for (int i = 0; i < BATCH; i++) right += largest(NET(logits)(&net) + i * OUTPUTS) == labels[i];
#endif
  return right;
}

/* One update by CALLS batches of `order`: the mean loss. */
static double update(const data_t *d, const uint32_t *order, float lr, int *right, const char *path) {
  double loss = 0;
  for (int call = 0; call < CALLS; call++) {
    for (int i = 0; i < BATCH; i++) fetch(d, order[call * BATCH + i], (size_t)i, path);
#if ACCUMULATES
    loss += (double)NET(accumulate)(&net, samples, labels);
#else
    loss += (double)NET(step)(&net, samples, labels, lr);
#endif
    *right += right_answers();
  }
#if ACCUMULATES
  NET(apply)(&net, lr);
#endif
  return loss / CALLS;
}

/* Share of right answers on the test part, or minus the mean squared error. */
static double evaluate(const data_t *d, const char *path) {
  double total = 0;
  for (uint64_t i = 0; i < d->test; i++) {
    fetch(d, d->train + i, 0, path);
    NET(predict)(&net, samples, outputs);
#if CLASSIFIES
    total += largest(outputs) == labels[0];
#else
    for (int k = 0; k < OUTPUTS; k++) {
      const double e = (double)outputs[k] - (double)labels[k];
      total -= e * e / OUTPUTS;
    }
#endif
  }
  return d->test ? total / (double)d->test : NAN;
}

static double rate(const options_t *o, uint64_t step, uint64_t steps) {
  if (o->constant) return o->lr;
  return o->lr * (1 + cos(3.14159265358979323846 * (double)step / (double)steps)) / 2;
}

static void train(const options_t *o, const data_t *d) {
  const uint64_t each = (uint64_t)BATCH * CALLS, steps = d->train / each;
  uint32_t *const order = malloc(sizeof *order * (d->train ? d->train : 1));
  if (steps == 0 || d->train > UINT32_MAX) fail("too few samples for one update: ", o->data);
  if (!order) fail("no memory for the order of samples of ", o->data);
  for (int epoch = 0; epoch < o->epochs; epoch++) {
    const double started = seconds();
    double total = 0;
    int right = 0;
    for (uint64_t i = 0; i < d->train; i++) order[i] = (uint32_t)i;
    if (!o->in_order) shuffle(order, d->train, o->seed, epoch);
    REDRAW(&net, (uint32_t)epoch);
    for (uint64_t s = 0; s < steps; s++) {
      const double lr = rate(o, (uint64_t)epoch * steps + s, (uint64_t)o->epochs * steps);
      const double loss = update(d, order + s * each, (float)lr, &right, o->data);
      if (!isfinite(loss)) fail("the loss is not finite: lower --lr", "");
      total += loss;
    }
    const double ms = 1e3 * (seconds() - started) / (double)steps;
    printf("epoch %d of %d: loss %.6f", epoch + 1, o->epochs, total / (double)steps);
    if (CLASSIFIES) printf(", accuracy %.4f", (double)right / (double)(steps * each));
    if (d->test) printf(", test %.4f", evaluate(d, o->data));
    printf(", %.3f ms an update\n", ms);
    fflush(stdout);
  }
  free(order);
}

static void load_state(const char *path) {
  FILE *const file = fopen(path, "rb");
  char magic[8];
  uint64_t about[2];
  if (!file) fail("cannot open ", path);
  read_exactly(file, magic, sizeof magic, path);
  read_exactly(file, about, sizeof about, path);
  if (memcmp(magic, "TLSTATE1", 8) || about[0] != MODEL_ID || about[1] != STATE_BYTES)
    fail("this is no state of this program: ", path);
  read_exactly(file, net.state, STATE_BYTES, path);
  fclose(file);
}

static void save_state(const char *path) {
  FILE *const file = fopen(path, "wb");
  const uint64_t about[2] = {MODEL_ID, STATE_BYTES};
  if (!file) fail("cannot write ", path);
  const int whole = fwrite("TLSTATE1", 1, 8, file) == 8 && fwrite(about, sizeof about, 1, file) == 1 &&
                    fwrite(net.state, 1, STATE_BYTES, file) == STATE_BYTES;
  if (fclose(file) || !whole) fail("cannot write ", path);
}

static void report_memory(void) {
#ifdef __linux__ /* VmHWM: ru_maxrss would count what the process was before it became this program */
  FILE *const file = fopen("/proc/self/status", "r");
  char line[256];
  while (file && fgets(line, sizeof line, file))
    if (!strncmp(line, "VmHWM:", 6)) printf("peak resident memory %ld KB\n", strtol(line + 6, NULL, 10));
  if (file) fclose(file);
#elif !defined(_WIN32)
  struct rusage used;
  if (getrusage(RUSAGE_SELF, &used) == 0) printf("peak resident memory %ld KB\n", (long)used.ru_maxrss / 1024);
#endif
}

static void info(void) {
  printf("%s: batch %d x %d, %d elements a sample, %d outputs, %lu bytes of memory, %lu of them state\n", MODEL_NAME,
         CALLS, BATCH, SAMPLE_ELEMENTS, OUTPUTS, (unsigned long)sizeof net, (unsigned long)STATE_BYTES);
}

static void usage(const char *name) {
  fprintf(stderr,
          "usage: %s info\n"
          "       %s train DATA [--epochs 5] [--lr 0.01] [--seed 0] [--constant] [--in-order] [--load S] [--save S]\n"
          "       %s eval DATA [--load S]\n",
          name, name, name);
  exit(2);
}

static double number(const char *text, const char *name) {
  char *end = NULL;
  const double x = text ? strtod(text, &end) : NAN;
  if (!text || end == text || *end || !isfinite(x) || x < 0) {
    fprintf(stderr, "error: %s needs a number that is not negative\n", name);
    exit(2);
  }
  return x;
}

static options_t parse(int count, char **words) {
  options_t o = {count > 1 ? words[1] : "", NULL, NULL, NULL, 5, 0, 0, 0.01, 0};
  for (int i = 2; i < count; i++) {
    const char *const word = words[i], *const next = i + 1 < count ? words[i + 1] : NULL;
    if (!strcmp(word, "--constant")) o.constant = 1;
    else if (!strcmp(word, "--in-order")) o.in_order = 1;
    else if (strncmp(word, "--", 2) && !o.data) o.data = word;
    else {
      if (!strcmp(word, "--epochs")) o.epochs = (int)number(next, word);
      else if (!strcmp(word, "--lr")) o.lr = number(next, word);
      else if (!strcmp(word, "--seed")) o.seed = (uint64_t)number(next, word);
      else if (!strcmp(word, "--load") && next) o.load = next;
      else if (!strcmp(word, "--save") && next) o.save = next;
      else usage(words[0]);
      i++;
    }
  }
  return o;
}

int main(int count, char **words) {
  CHECK_PROCESSOR
  const options_t o = parse(count, words);
  NET(init)(&net, (uint32_t)o.seed);
  if (!strcmp(o.command, "info")) {
    info();
    return 0;
  }
  if (!o.data || (strcmp(o.command, "train") && strcmp(o.command, "eval"))) usage(words[0]);
  const data_t data = open_data(o.data);
  if (o.load) load_state(o.load);
  if (!strcmp(o.command, "train")) train(&o, &data);
  else printf("test %.4f on %llu samples\n", evaluate(&data, o.data), (unsigned long long)data.test);
  if (o.save) save_state(o.save);
  report_memory();
  return 0;
}
