/* The random words of Sources/TensorKernels/Philox.swift on CPUs with AVX-512: the same words, in less than half of the time.
 *
 * In C, because Swift compiles a module for one CPU, and these functions need another one than the rest. No other kernel gained by it. */
#ifndef STOCKPOT_PHILOX_H
#define STOCKPOT_PHILOX_H

#include <stdint.h>

/* The words of one tensor of one model. */
typedef struct {
  /* Of the ten rounds: k0 at 2 r, k1 at 2 r + 1. */
  const uint64_t *keys;
  /* The upper words of each counter. */
  uint32_t model;
  uint32_t stream;
} philox_stream;

/* Words of one group. */
enum { PHILOX_GROUP = 128 };

/* Does this CPU run the functions below, and at full speed? Call them only where this gives 1. */
int philox_is_wide(void);

/* Write `groups` groups of words of successive counters, four words each.
 *
 * words: groups * PHILOX_GROUP of them, not necessarily aligned. counter: the first one, 64 bits. */
void philox_fill(uint32_t *words, uint64_t counter, long groups, philox_stream stream);

/* Mark which of 256 * count words are below a limit.
 *
 * bits: 8 * count words, not necessarily aligned: of 256 random words, bit 31 - b of word l of 8 stands for random word 8 b + l. paired: of
 * each 16 random words those at even places come first, else all are in order. */
void philox_mark(uint32_t *bits, uint64_t counter, long count, philox_stream stream, uint32_t limit, int paired);

#endif
