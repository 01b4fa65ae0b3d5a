/* Learning on a device as a loop: train on what comes in, rehearse what came before, keep only what does no harm.
 *
 *   tl_session_learn   one labelled sample: predict it, then train on it and on `replays` earlier ones, or hold it back
 *   tl_session_judge   now and then: compare the network with its last committed state on the held-back samples;
 *                      commit it (to flash, if there is a store) unless it got worse, else go back to the last one
 *
 * Samples are kept as what is alive behind the network's frozen prefix (the emitted *_BOUNDARY_BYTES): an earlier
 * sample costs that much memory, and training on it or testing it skips the prefix. Two reservoirs, for replay
 * (boundary of the training function) and held back (boundary of predict), each class-balanced: Chrysakis and Moens,
 * "Online Continual Learning from Imbalanced Data", ICML 2020, algorithm 1.
 *
 * Worse means: fewer right answers on all held-back samples, or too many fewer on those from before the last judgement.
 * The second counts where labels go wrong: they are as wrong in the samples held back meanwhile, and a network that has
 * learned them answers those better.
 *
 * What came since the last judgement is dropped from both reservoirs by a roll-back: it may be what did the harm.
 * The labels are classes. Programs of batch 1, that update each call or accumulate. The reservoirs live in RAM and
 * start empty after a reboot. All choices come from the seed: the same calls give the same bits.
 * No malloc, no globals; of libc only string.h.
 */
#ifndef TL_SESSION_H
#define TL_SESSION_H

#include <stddef.h>
#include <stdint.h>

#include "store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* An emitted program, behind functions of one type for all networks. TL_SESSION_PROGRAM below fills it in.
 * step_resume trains on one sample and returns the loss before it; apply updates after accumulated samples, NULL where
 * step_resume does it. logits: outputs of the last training call, [outputs].
 * state: where get_state copies from, if that is one piece of memory, else NULL; with it one copy less is needed. */
typedef struct {
  void *memory;
  uint32_t step_boundary_bytes, predict_boundary_bytes, state_bytes;
  int32_t outputs;
  void (*step_prefix)(void *memory, const void *sample, uint8_t *boundary);
  float (*step_resume)(void *memory, const uint8_t *boundary, const int32_t *label, float lr);
  void (*apply)(void *memory, float lr);
  const float *(*logits)(const void *memory);
  void (*predict_prefix)(void *memory, const void *sample, uint8_t *boundary);
  void (*predict_resume)(void *memory, const uint8_t *boundary, float *out);
  void (*get_state)(const void *memory, void *dst);
  void (*set_state)(void *memory, const void *src);
  void *state;
} tl_session_program;

/* Bytes of one kept sample; of `count` of them as replay_bytes or held_bytes. */
#define TL_SESSION_SAMPLE_BYTES(boundary_bytes) (4u + ((uint32_t)(boundary_bytes) + 3u) / 4u * 4u)
#define TL_SESSION_KEEP_BYTES(count, boundary_bytes) ((uint32_t)(count) * TL_SESSION_SAMPLE_BYTES(boundary_bytes))

/* Memory of a session beside its reservoirs: the committed state (2 copies where program.state is NULL, else 1), the
 * boundary of the sample at hand, outputs, counters per class. larger_boundary: of the two boundaries. */
#define TL_SESSION_BASE_BYTES(larger_boundary, state_bytes, state_copies, outputs) \
  (((uint32_t)(state_bytes) + 3u) / 4u * 4u * (uint32_t)(state_copies) +           \
   ((uint32_t)(larger_boundary) + 3u) / 4u * 4u + 28u * (uint32_t)(outputs))

typedef struct {
  uint32_t seed;
  uint32_t replay_bytes, held_bytes; /* for the two reservoirs; 0: none */
  uint32_t replays;                  /* earlier samples trained on after each new one */
  uint32_t held_per_256;             /* share of incoming samples that is held back, in 256ths */
  uint32_t least_held;               /* held-back samples below which nothing is judged; at least 1 */
  uint32_t older_loss_per_256;       /* share of older held-back samples that may turn wrong, in 256ths */
  const tl_store_flash *flash;       /* NULL: committed states stay in RAM */
  tl_store_model_id model;
} tl_session_config;

typedef struct {
  uint32_t seen;   /* samples of the class offered so far */
  uint32_t stored; /* of them in the reservoir */
  uint32_t full;   /* whether the class has been the largest of a full reservoir */
} tl_session_class;

typedef struct {
  uint8_t *samples; /* [capacity]: label and flags s32, boundary padded to 4 bytes */
  tl_session_class *classes;
  uint32_t boundary_bytes, stride, capacity, count;
  uint32_t stream; /* of random numbers */
} tl_session_reservoir;

typedef struct {
  tl_session_program program;
  tl_session_config config;
  tl_session_reservoir replay, held;
  uint8_t *committed, *spare; /* the last committed state; room for the present one where program.state is NULL */
  uint8_t *boundary;          /* of the sample at hand */
  float *out;
  uint32_t draws;   /* of random numbers so far */
  uint32_t trained; /* training calls since the last judgement */
  uint32_t unsaved; /* committed in RAM, but the flash failed */
  uint32_t diverged;
} tl_session;

typedef enum {
  TL_SESSION_OK,
  TL_SESSION_HELD_BACK,   /* learn: the sample was predicted and kept for judging, not trained on */
  TL_SESSION_COMMITTED,   /* judge: not worse than before, this is the committed state now */
  TL_SESSION_ROLLED_BACK, /* judge: worse, or not a number any more; the committed state is back, bit for bit */
  TL_SESSION_NOTHING_NEW, /* judge: nothing was trained since the last time */
  TL_SESSION_TOO_FEW,     /* judge: fewer than least_held samples are held back; training goes on, uncommitted */
  TL_SESSION_NOT_SAVED,   /* judge: committed in RAM, but the flash failed (report.store says how); tried again */
  TL_SESSION_BAD_LABEL,   /* the label is no class of the network; nothing happened */
  TL_SESSION_NO_MEMORY    /* begin: memory is too small or not aligned to 4 bytes */
} tl_session_status;

/* Correct answers among `count` held-back samples; of those, older: from before the last judgement. */
typedef struct {
  uint32_t count, right, older, older_right;
} tl_session_score;

/* How a judgement came about. */
typedef struct {
  tl_session_score now, committed; /* all 0 where nothing was evaluated */
  tl_store_status store; /* of the save; TL_STORE_OK where none was made */
} tl_session_report;

/* A status as a sentence for a log. */
const char *tl_session_words(tl_session_status status);

/* Bytes that tl_session_begin needs. */
uint32_t tl_session_bytes(const tl_session_program *program, const tl_session_config *config);

/* Starts on a program that has been initialised. With a store, its record (if it has one of this model) becomes the
 * program's state; *loaded (may be NULL) tells how that went. What the program then holds counts as committed.
 * memory: `bytes`, aligned to 4, the session's until its end. program and config are copied, flash is not. */
tl_session_status tl_session_begin(tl_session *s, const tl_session_program *program, const tl_session_config *config,
                                   void *memory, uint32_t bytes, tl_store_status *loaded);

/* The network's answer to a sample: out [outputs]. */
void tl_session_predict(tl_session *s, const void *sample, float *out);

/* Learns from one labelled sample. out [outputs] (may be NULL): its answer before it learned from it.
 * Returns OK, HELD_BACK or BAD_LABEL. */
tl_session_status tl_session_learn(tl_session *s, const void *sample, int32_t label, float lr, float *out);

/* Trains on `count` earlier samples, when there is time to spare. Returns how many there were. */
uint32_t tl_session_rehearse(tl_session *s, uint32_t count, float lr);

/* Holds a sample back whose label is known to be right. It stays through a roll-back, until the reservoir drops it.
 * Where samples come in bursts that resemble each other, hold back whole bursts with this (held_per_256 = 0). */
tl_session_status tl_session_hold(tl_session *s, const void *sample, int32_t label);

/* Tests the network on the held-back samples. */
tl_session_score tl_session_evaluate(tl_session *s);

/* Commits or rolls back. Costs two evaluations of the held-back samples, and a save. report may be NULL. */
tl_session_status tl_session_judge(tl_session *s, tl_session_report *report);

/* Commits without judging, for instance while nothing is held back. Returns COMMITTED or NOT_SAVED. */
tl_session_status tl_session_commit(tl_session *s, tl_session_report *report);

/* Goes back to the last committed state, whatever the judgement would be. */
void tl_session_roll_back(tl_session *s);

/* Defines `tl_session_program name##_session_program(name##_t *m)` for an emitted program: name and NAME as in its
 * header, its type of samples, its number of outputs. Include the header first; use once, in a C file.
 * The second form is for programs that accumulate. */
#define TL_SESSION_PROGRAM(name, NAME, sample_type, outputs)                                               \
  static float name##_session_resume(void *m, const uint8_t *boundary, const int32_t *label, float lr) {   \
    return name##_step_resume((name##_t *)m, boundary, label, lr);                                         \
  }                                                                                                        \
  TL_SESSION_BIND(name, NAME, sample_type, outputs, step, NAME##_STEP_BOUNDARY_BYTES, NULL)

#define TL_SESSION_ACCUMULATING_PROGRAM(name, NAME, sample_type, outputs)                                  \
  static float name##_session_resume(void *m, const uint8_t *boundary, const int32_t *label, float lr) {   \
    (void)lr;                                                                                              \
    return name##_accumulate_resume((name##_t *)m, boundary, label);                                       \
  }                                                                                                        \
  static void name##_session_apply(void *m, float lr) { name##_apply((name##_t *)m, lr); }                 \
  TL_SESSION_BIND(name, NAME, sample_type, outputs, accumulate, NAME##_ACCUMULATE_BOUNDARY_BYTES, name##_session_apply)

#define TL_SESSION_BIND(name, NAME, sample_type, outputs, training, boundary_bytes, apply)                 \
  typedef char name##_session_needs_batch_1[NAME##_BATCH == 1 ? 1 : -1];                                   \
  static void name##_session_prefix(void *m, const void *sample, uint8_t *boundary) {                      \
    name##_##training##_prefix((name##_t *)m, (const sample_type *)sample, boundary);                      \
  }                                                                                                        \
  static const float *name##_session_logits(const void *m) { return name##_logits((const name##_t *)m); }  \
  static void name##_session_predict_prefix(void *m, const void *sample, uint8_t *boundary) {              \
    name##_predict_prefix((name##_t *)m, (const sample_type *)sample, boundary);                           \
  }                                                                                                        \
  static void name##_session_predict_resume(void *m, const uint8_t *boundary, float *out) {                \
    name##_predict_resume((name##_t *)m, boundary, out);                                                   \
  }                                                                                                        \
  static void name##_session_get_state(const void *m, void *dst) { name##_get_state((const name##_t *)m, dst); } \
  static void name##_session_set_state(void *m, const void *src) { name##_set_state((name##_t *)m, src); } \
  tl_session_program name##_session_program(name##_t *m);                                                  \
  tl_session_program name##_session_program(name##_t *m) {                                                 \
    const tl_session_program p = {                                                                         \
        m, boundary_bytes, NAME##_PREDICT_BOUNDARY_BYTES, NAME##_STATE_BYTES, outputs,                     \
        name##_session_prefix, name##_session_resume, apply, name##_session_logits,                        \
        name##_session_predict_prefix, name##_session_predict_resume,                                      \
        name##_session_get_state, name##_session_set_state, m->state};                                     \
    return p;                                                                                              \
  }

#ifdef __cplusplus
}
#endif

#endif
