#include "session.h"

#include <string.h>

#include "tl_random.h"

/* The first word of a kept sample: its label, and whether it came since the last judgement. */
#define RECENT 0x40000000u

const char *tl_session_words(tl_session_status status) {
  switch (status) {
    case TL_SESSION_OK: return "done";
    case TL_SESSION_HELD_BACK: return "the sample is held back for judging";
    case TL_SESSION_COMMITTED: return "not worse than before: committed";
    case TL_SESSION_ROLLED_BACK: return "worse than before: the last committed state is back";
    case TL_SESSION_NOTHING_NEW: return "nothing was trained since the last judgement";
    case TL_SESSION_TOO_FEW: return "too few samples are held back to judge by: keep learning";
    case TL_SESSION_NOT_SAVED: return "not worse than before, but the flash did not take it: check the flash";
    case TL_SESSION_BAD_LABEL: return "the label is no class of the network";
    case TL_SESSION_NO_MEMORY: return "the session needs tl_session_bytes of memory, aligned to 4";
  }
  return "unknown status";
}

static uint32_t padded(uint32_t bytes) { return (bytes + 3u) / 4u * 4u; }

static uint32_t below(tl_session *s, uint32_t stream, uint32_t limit) {
  const uint32_t bits = tl_random_bits(tl_random_key(s->config.seed, 0, stream), s->draws++);
  return (uint32_t)((uint64_t)bits * limit >> 32);
}

/* Reservoirs. */

static uint8_t *sample_at(const tl_session_reservoir *r, uint32_t i) { return r->samples + (size_t)i * r->stride; }

static uint32_t tag(const tl_session_reservoir *r, uint32_t i) {
  uint32_t t;
  memcpy(&t, sample_at(r, i), sizeof t);
  return t;
}

static int32_t label_of(const tl_session_reservoir *r, uint32_t i) { return (int32_t)(tag(r, i) & (RECENT - 1u)); }

static void put(tl_session_reservoir *r, uint32_t i, uint32_t label, const uint8_t *boundary) {
  memcpy(sample_at(r, i), &label, sizeof label);
  memcpy(sample_at(r, i) + 4, boundary, r->boundary_bytes);
}

/* The at-th kept sample of a class. */
static uint32_t nth_of(const tl_session_reservoir *r, int32_t label, uint32_t at) {
  uint32_t i = 0;
  for (;; i++) {
    if (label_of(r, i) == label && at-- == 0) return i;
  }
}

static int32_t largest_class(const tl_session_reservoir *r, int32_t classes) {
  int32_t best = 0;
  for (int32_t c = 1; c < classes; c++) {
    if (r->classes[c].stored > r->classes[best].stored) best = c;
  }
  return best;
}

/* Chrysakis and Moens, algorithm 1. A class that never was the largest takes the place of one of the largest; one that
 * was keeps a uniform choice of its own samples (Vitter's algorithm R). */
static void offer(tl_session *s, tl_session_reservoir *r, int32_t label, uint32_t flags, const uint8_t *boundary) {
  tl_session_class *own = &r->classes[label];
  const uint32_t word = (uint32_t)label | flags;
  own->seen += own->seen != UINT32_MAX;
  if (r->capacity == 0) return;
  if (r->count < r->capacity) {
    put(r, r->count++, word, boundary);
    own->stored++;
    return;
  }
  const int32_t largest = largest_class(r, s->program.outputs);
  for (int32_t c = 0; c < s->program.outputs; c++) {
    r->classes[c].full |= r->classes[c].stored == r->classes[largest].stored;
  }
  if (!own->full) {
    put(r, nth_of(r, largest, below(s, r->stream, r->classes[largest].stored)), word, boundary);
    r->classes[largest].stored--;
    own->stored++;
  } else {
    const uint32_t at = below(s, r->stream, own->seen);
    if (at < own->stored) put(r, nth_of(r, label, at), word, boundary);
  }
}

/* After a judgement: nothing is recent any more; what was stays or goes. There is room again where something went, so
 * no class counts as full: one that lost all its samples could not come back otherwise. */
static void settle(tl_session_reservoir *r, int32_t classes, int keep) {
  uint32_t left = 0;
  for (uint32_t i = 0; i < r->count; i++) {
    const uint32_t word = tag(r, i), label = word & (RECENT - 1u);
    if (!keep && (word & RECENT) != 0) {
      r->classes[label].stored--;
      continue;
    }
    memmove(sample_at(r, left), sample_at(r, i), r->stride);
    memcpy(sample_at(r, left++), &label, sizeof label);
  }
  for (int32_t c = 0; c < classes; c++) {
    if (left < r->count) r->classes[c].full = 0;
  }
  r->count = left;
}

/* Memory. */

static tl_session_reservoir reservoir(uint32_t boundary_bytes, uint32_t bytes, uint32_t stream) {
  tl_session_reservoir r = {NULL, NULL, boundary_bytes, TL_SESSION_SAMPLE_BYTES(boundary_bytes), 0, 0, stream};
  r.capacity = bytes / r.stride;
  return r;
}

static uint32_t reservoir_bytes(const tl_session_program *p, const tl_session_config *c) {
  return c->replay_bytes / TL_SESSION_SAMPLE_BYTES(p->step_boundary_bytes) *
             TL_SESSION_SAMPLE_BYTES(p->step_boundary_bytes) +
         c->held_bytes / TL_SESSION_SAMPLE_BYTES(p->predict_boundary_bytes) *
             TL_SESSION_SAMPLE_BYTES(p->predict_boundary_bytes);
}

static uint32_t larger_boundary(const tl_session_program *p) {
  return p->step_boundary_bytes > p->predict_boundary_bytes ? p->step_boundary_bytes : p->predict_boundary_bytes;
}

uint32_t tl_session_bytes(const tl_session_program *program, const tl_session_config *config) {
  const tl_session_program *p = program;
  return reservoir_bytes(p, config) +
         TL_SESSION_BASE_BYTES(larger_boundary(p), p->state_bytes, p->state != NULL ? 1 : 2, p->outputs);
}

static uint8_t *take(uint8_t **at, uint32_t bytes) {
  uint8_t *piece = *at;
  *at += padded(bytes);
  return piece;
}

static void divide(tl_session *s, uint8_t *at) {
  const tl_session_program *p = &s->program;
  const uint32_t outputs = (uint32_t)p->outputs;
  s->replay.classes = (tl_session_class *)(void *)take(&at, outputs * (uint32_t)sizeof(tl_session_class));
  s->held.classes = (tl_session_class *)(void *)take(&at, outputs * (uint32_t)sizeof(tl_session_class));
  s->out = (float *)(void *)take(&at, outputs * (uint32_t)sizeof(float));
  s->committed = take(&at, p->state_bytes);
  s->spare = p->state != NULL ? NULL : take(&at, p->state_bytes);
  s->boundary = take(&at, larger_boundary(p));
  s->replay.samples = take(&at, s->replay.capacity * s->replay.stride);
  s->held.samples = take(&at, s->held.capacity * s->held.stride);
  memset(s->replay.classes, 0, outputs * sizeof(tl_session_class));
  memset(s->held.classes, 0, outputs * sizeof(tl_session_class));
}

tl_session_status tl_session_begin(tl_session *s, const tl_session_program *program, const tl_session_config *config,
                                   void *memory, uint32_t bytes, tl_store_status *loaded) {
  if (bytes < tl_session_bytes(program, config) || (uintptr_t)memory % 4 != 0) return TL_SESSION_NO_MEMORY;
  memset(s, 0, sizeof *s);
  s->program = *program;
  s->config = *config;
  s->replay = reservoir(program->step_boundary_bytes, config->replay_bytes, 1);
  s->held = reservoir(program->predict_boundary_bytes, config->held_bytes, 2);
  divide(s, (uint8_t *)memory);
  const tl_store_status found = config->flash == NULL
      ? TL_STORE_EMPTY : tl_store_load(config->flash, config->model, s->committed, program->state_bytes);
  if (found == TL_STORE_OK) program->set_state(program->memory, s->committed);
  program->get_state(program->memory, s->committed);
  if (loaded != NULL) *loaded = found;
  return TL_SESSION_OK;
}

/* Predicting. */

static int is_class(const tl_session *s, int32_t label) { return label >= 0 && label < s->program.outputs; }

/* Whether the label's output is the largest, the first of several; never where an output is not a number. */
static int is_right(const float *out, int32_t outputs, int32_t label) {
  int right = out[label] == out[label];
  for (int32_t i = 0; i < outputs; i++) right &= i < label ? out[i] < out[label] : out[i] <= out[label];
  return right;
}

void tl_session_predict(tl_session *s, const void *sample, float *out) {
  const tl_session_program *p = &s->program;
  p->predict_prefix(p->memory, sample, s->boundary);
  p->predict_resume(p->memory, s->boundary, out);
}

tl_session_score tl_session_evaluate(tl_session *s) {
  const tl_session_program *p = &s->program;
  tl_session_score score = {s->held.count, 0, 0, 0};
  for (uint32_t i = 0; i < s->held.count; i++) {
    p->predict_resume(p->memory, sample_at(&s->held, i) + 4, s->out);
    const uint32_t right = (uint32_t)is_right(s->out, p->outputs, label_of(&s->held, i));
    const uint32_t older = (tag(&s->held, i) & RECENT) == 0;
    score.right += right;
    score.older += older;
    score.older_right += older & right;
  }
  return score;
}

/* Training. */

static void train(tl_session *s, const uint8_t *boundary, int32_t label, float lr) {
  const float loss = s->program.step_resume(s->program.memory, boundary, &label, lr);
  s->trained++;
  if (!(loss - loss == 0.0f)) s->diverged = 1; /* infinite or not a number */
}

static uint32_t replay(tl_session *s, uint32_t count, float lr) {
  if (s->replay.count == 0) return 0;
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t at = below(s, 3, s->replay.count);
    train(s, sample_at(&s->replay, at) + 4, label_of(&s->replay, at), lr);
  }
  return count;
}

static void update(tl_session *s, float lr) {
  if (s->program.apply != NULL) s->program.apply(s->program.memory, lr);
}

uint32_t tl_session_rehearse(tl_session *s, uint32_t count, float lr) {
  const uint32_t done = replay(s, count, lr);
  update(s, lr);
  return done;
}

static void hold(tl_session *s, const void *sample, int32_t label, uint32_t flags) {
  s->program.predict_prefix(s->program.memory, sample, s->boundary);
  offer(s, &s->held, label, flags, s->boundary);
}

tl_session_status tl_session_hold(tl_session *s, const void *sample, int32_t label) {
  if (!is_class(s, label)) return TL_SESSION_BAD_LABEL;
  hold(s, sample, label, 0);
  return TL_SESSION_OK;
}

tl_session_status tl_session_learn(tl_session *s, const void *sample, int32_t label, float lr, float *out) {
  const tl_session_program *p = &s->program;
  if (!is_class(s, label)) return TL_SESSION_BAD_LABEL;
  if (s->held.capacity != 0 && below(s, 4, 256) < s->config.held_per_256) {
    hold(s, sample, label, RECENT);
    if (out != NULL) p->predict_resume(p->memory, s->boundary, out);
    return TL_SESSION_HELD_BACK;
  }
  p->step_prefix(p->memory, sample, s->boundary);
  train(s, s->boundary, label, lr);
  if (out != NULL) memcpy(out, p->logits(p->memory), (size_t)p->outputs * sizeof *out);
  replay(s, s->config.replays, lr);
  update(s, lr);
  offer(s, &s->replay, label, RECENT, s->boundary);
  return TL_SESSION_OK;
}

/* Judging. */

/* Exchanges the present state with the committed one. */
static void exchange(tl_session *s) {
  const tl_session_program *p = &s->program;
  if (p->state != NULL) {
    uint8_t *live = (uint8_t *)p->state;
    for (uint32_t i = 0; i < p->state_bytes; i++) {
      const uint8_t byte = live[i];
      live[i] = s->committed[i];
      s->committed[i] = byte;
    }
  } else {
    p->get_state(p->memory, s->spare);
    p->set_state(p->memory, s->committed);
    memcpy(s->committed, s->spare, p->state_bytes);
  }
}

static void end_period(tl_session *s, int keep) {
  settle(&s->replay, s->program.outputs, keep);
  settle(&s->held, s->program.outputs, keep);
  s->trained = 0;
  s->diverged = 0;
}

void tl_session_roll_back(tl_session *s) {
  s->program.set_state(s->program.memory, s->committed);
  end_period(s, 0);
}

static tl_session_status save(tl_session *s, tl_session_report *r) {
  const tl_session_config *c = &s->config;
  if (c->flash == NULL) return TL_SESSION_COMMITTED;
  r->store = tl_store_save(c->flash, c->model, s->committed, s->program.state_bytes);
  s->unsaved = r->store != TL_STORE_OK;
  return s->unsaved ? TL_SESSION_NOT_SAVED : TL_SESSION_COMMITTED;
}

static tl_session_status commit(tl_session *s, tl_session_report *r) {
  s->program.get_state(s->program.memory, s->committed);
  end_period(s, 1);
  return save(s, r);
}

static tl_session_report *cleared(tl_session_report *r) {
  memset(r, 0, sizeof *r);
  r->store = TL_STORE_OK;
  return r;
}

tl_session_status tl_session_commit(tl_session *s, tl_session_report *report) {
  tl_session_report own;
  return commit(s, cleared(report != NULL ? report : &own));
}

/* Both states meet the same held-back samples: a number from an earlier judgement would be about other ones. */
static int is_worse(tl_session *s, tl_session_report *r) {
  r->now = tl_session_evaluate(s);
  exchange(s);
  r->committed = tl_session_evaluate(s);
  exchange(s);
  const uint32_t loss = (uint32_t)((uint64_t)r->now.older * s->config.older_loss_per_256 / 256);
  return r->now.right < r->committed.right || r->now.older_right + loss < r->committed.older_right;
}

tl_session_status tl_session_judge(tl_session *s, tl_session_report *report) {
  tl_session_report own, *r = cleared(report != NULL ? report : &own);
  if (s->trained == 0) return s->unsaved ? save(s, r) : TL_SESSION_NOTHING_NEW;
  if (!s->diverged && (s->held.count == 0 || s->held.count < s->config.least_held)) return TL_SESSION_TOO_FEW;
  if (s->diverged || is_worse(s, r)) {
    tl_session_roll_back(s);
    return TL_SESSION_ROLLED_BACK;
  }
  return commit(s, r);
}
