#include "philox.h"

#if defined(__x86_64__)

typedef uint64_t lanes __attribute__((vector_size(64)));
typedef lanes unaligned_lanes __attribute__((aligned(4)));

/* Counters of a group are taken at a time in so many vectors of eight: a round waits for its products, which fill the time of one another. */
enum { VECTORS = PHILOX_GROUP / 32 };

int philox_is_wide(void) {
  /* The first CPUs with AVX-512, which lower their clock for products of 64 bytes, do not have vbmi2. */
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vbmi2");
}

/* Each lane has one 32-bit word in its low half; what gathers in the high one, products do not look at. */
__attribute__((always_inline, target("avx512f"))) static inline void fill(
  uint32_t *words, uint64_t counter, long groups, const uint64_t keys[20], uint32_t model, uint32_t stream, int paired) {
  const lanes low = (lanes){0} + 0xFFFFFFFF;
  for (long group = 0; group < groups; group++) {
    lanes x0[VECTORS], x1[VECTORS], x2[VECTORS], x3[VECTORS];
#pragma clang loop unroll(full)
    for (int i = 0; i < VECTORS; i++) {
      x0[i] = counter + 8 * VECTORS * (uint64_t)group + 8 * (uint64_t)i + (lanes){0, 1, 2, 3, 4, 5, 6, 7};
      x1[i] = x0[i] >> 32;
      x2[i] = (lanes){0} + model;
      x3[i] = (lanes){0} + stream;
    }
#pragma clang loop unroll(disable)
    for (int round = 0; round < 10; round++) {
#pragma clang loop unroll(full)
      for (int i = 0; i < VECTORS; i++) {
        lanes p0 = (x0[i] & low) * 0xD2511F53, p1 = (x2[i] & low) * 0xCD9E8D57;
        x0[i] = (p1 >> 32) ^ x1[i] ^ keys[2 * round];
        x1[i] = p1;
        x2[i] = (p0 >> 32) ^ x3[i] ^ keys[2 * round + 1];
        x3[i] = p0;
      }
    }
#pragma clang loop unroll(full)
    for (int i = 0; i < VECTORS; i++) {
      unaligned_lanes *place = (unaligned_lanes *)(words + PHILOX_GROUP * group + 32 * i);
      if (paired) {
        lanes even = (x0[i] & low) | x2[i] << 32, odd = (x1[i] & low) | x3[i] << 32;
        place[0] = __builtin_shufflevector(even, odd, 0, 1, 2, 3, 8, 9, 10, 11);
        place[1] = __builtin_shufflevector(even, odd, 4, 5, 6, 7, 12, 13, 14, 15);
      } else {
        lanes first = (x0[i] & low) | x1[i] << 32, second = (x2[i] & low) | x3[i] << 32;
        place[0] = __builtin_shufflevector(first, second, 0, 8, 1, 9, 2, 10, 3, 11);
        place[1] = __builtin_shufflevector(first, second, 4, 12, 5, 13, 6, 14, 7, 15);
      }
    }
  }
}

__attribute__((target("avx512f"))) void philox_fill(
  uint32_t *words, uint64_t counter, long groups, const uint64_t keys[20], uint32_t model, uint32_t stream, int paired) {
  if (paired) {
    fill(words, counter, groups, keys, model, stream, 1);
  } else {
    fill(words, counter, groups, keys, model, stream, 0);
  }
}

#else

int philox_is_wide(void) { return 0; }

void philox_fill(
  uint32_t *words, uint64_t counter, long groups, const uint64_t keys[20], uint32_t model, uint32_t stream, int paired) {
  /* Nobody calls it. */
  (void)words, (void)counter, (void)groups, (void)keys, (void)model, (void)stream, (void)paired;
}

#endif
