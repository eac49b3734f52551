/* The random words of Sources/TensorKernels/Philox.swift on CPUs with AVX-512: the same words, in less than half of the time.
 *
 * In C, because Swift compiles a module for one CPU, and this one function needs another one than the rest. Nothing else gained by it. */
#ifndef STOCKPOT_PHILOX_H
#define STOCKPOT_PHILOX_H

#include <stdint.h>

/* Words of one group. */
enum { PHILOX_GROUP = 128 };

/* Does this CPU run philox_fill, and at full speed? */
int philox_is_wide(void);

/* Write `groups` groups of words of successive counters, four words each.
 *
 * words: groups * PHILOX_GROUP of them, not necessarily aligned. counter: the first one, 64 bits. keys: of the ten rounds, k0 at 2 r, k1 at
 * 2 r + 1. model, stream: the upper words of each counter. paired: of each 16 words those at even places first, else all in order.
 * Call it only where philox_is_wide gives 1. */
void philox_fill(
  uint32_t *words, uint64_t counter, long groups, const uint64_t keys[20], uint32_t model, uint32_t stream, int paired);

#endif
