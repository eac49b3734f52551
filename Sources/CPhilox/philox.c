#include "philox.h"

#if defined(__x86_64__)

typedef uint64_t lanes __attribute__((vector_size(64)));
typedef uint32_t words16 __attribute__((vector_size(64)));
typedef uint32_t words8 __attribute__((vector_size(32)));
typedef words16 unaligned16 __attribute__((aligned(4)));
typedef words8 unaligned8 __attribute__((aligned(4)));

#define WIDE __attribute__((target("avx512f")))
#define INLINE __attribute__((always_inline, target("avx512f"))) static inline

/* Counters of a group are taken at a time in so many vectors of eight: a round waits for its products, which fill the time of one another. */
enum { VECTORS = PHILOX_GROUP / 32 };

typedef struct {
  words16 half[2 * VECTORS];
} group;

int philox_is_wide(void) {
  /* The first CPUs with AVX-512, which lower their clock for products of 64 bytes, do not have vbmi2. */
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vbmi2");
}

/* The words of a group, with `paired` of each 16 those at even places first. Each lane has one in its low half; what gathers in the high
 * one, products do not look at. */
INLINE group make(uint64_t counter, philox_stream stream, int paired) {
  const lanes low = (lanes){0} + 0xFFFFFFFF;
  lanes x0[VECTORS], x1[VECTORS], x2[VECTORS], x3[VECTORS];
#pragma clang loop unroll(full)
  for (int i = 0; i < VECTORS; i++) {
    x0[i] = counter + 8 * (uint64_t)i + (lanes){0, 1, 2, 3, 4, 5, 6, 7};
    x1[i] = x0[i] >> 32;
    x2[i] = (lanes){0} + stream.model;
    x3[i] = (lanes){0} + stream.stream;
  }
#pragma clang loop unroll(disable)
  for (int round = 0; round < 10; round++) {
#pragma clang loop unroll(full)
    for (int i = 0; i < VECTORS; i++) {
      lanes p0 = (x0[i] & low) * 0xD2511F53, p1 = (x2[i] & low) * 0xCD9E8D57;
      x0[i] = (p1 >> 32) ^ x1[i] ^ stream.keys[2 * round];
      x1[i] = p1;
      x2[i] = (p0 >> 32) ^ x3[i] ^ stream.keys[2 * round + 1];
      x3[i] = p0;
    }
  }
  group all;
#pragma clang loop unroll(full)
  for (int i = 0; i < VECTORS; i++) {
    if (paired) {
      lanes even = (x0[i] & low) | x2[i] << 32, odd = (x1[i] & low) | x3[i] << 32;
      all.half[2 * i] = (words16)__builtin_shufflevector(even, odd, 0, 1, 2, 3, 8, 9, 10, 11);
      all.half[2 * i + 1] = (words16)__builtin_shufflevector(even, odd, 4, 5, 6, 7, 12, 13, 14, 15);
    } else {
      lanes first = (x0[i] & low) | x1[i] << 32, second = (x2[i] & low) | x3[i] << 32;
      all.half[2 * i] = (words16)__builtin_shufflevector(first, second, 0, 8, 1, 9, 2, 10, 3, 11);
      all.half[2 * i + 1] = (words16)__builtin_shufflevector(first, second, 4, 12, 5, 13, 6, 14, 7, 15);
    }
  }
  return all;
}

INLINE void mark(uint32_t *bits, uint64_t counter, long count, philox_stream stream, uint32_t limit, int paired) {
  /* Of 16 words the first eight have the higher bit. */
  const words16 first = {1u << 31, 1u << 31, 1u << 31, 1u << 31, 1u << 31, 1u << 31, 1u << 31, 1u << 31,
                         1u << 30, 1u << 30, 1u << 30, 1u << 30, 1u << 30, 1u << 30, 1u << 30, 1u << 30};
  for (long i = 0; i < count; i++) {
    words16 marks = {0};
    for (int part = 0; part < 256 / PHILOX_GROUP; part++) {
      group all = make(counter + (uint64_t)i * 64 + (uint64_t)part * (PHILOX_GROUP / 4), stream, paired);
      words16 bit = first >> (uint32_t)(part * (PHILOX_GROUP / 8));
#pragma clang loop unroll(full)
      for (int half = 0; half < 2 * VECTORS; half++) {
        marks |= (words16)(all.half[half] < limit) & bit >> (uint32_t)(2 * half);
      }
    }
    words8 low = __builtin_shufflevector(marks, marks, 0, 1, 2, 3, 4, 5, 6, 7);
    words8 high = __builtin_shufflevector(marks, marks, 8, 9, 10, 11, 12, 13, 14, 15);
    *(unaligned8 *)(bits + 8 * i) = low | high;
  }
}

WIDE void philox_fill(uint32_t *words, uint64_t counter, long groups, philox_stream stream) {
  for (long i = 0; i < groups; i++) {
    group all = make(counter + (uint64_t)i * (PHILOX_GROUP / 4), stream, 0);
    for (int half = 0; half < 2 * VECTORS; half++) {
      *(unaligned16 *)(words + PHILOX_GROUP * i + 16 * half) = all.half[half];
    }
  }
}

WIDE void philox_mark(uint32_t *bits, uint64_t counter, long count, philox_stream stream, uint32_t limit, int paired) {
  if (paired) {
    mark(bits, counter, count, stream, limit, 1);
  } else {
    mark(bits, counter, count, stream, limit, 0);
  }
}

#else

int philox_is_wide(void) { return 0; }

/* Nobody calls these. */
void philox_fill(uint32_t *words, uint64_t counter, long groups, philox_stream stream) {
  (void)words, (void)counter, (void)groups, (void)stream;
}

void philox_mark(uint32_t *bits, uint64_t counter, long count, philox_stream stream, uint32_t limit, int paired) {
  (void)bits, (void)counter, (void)count, (void)stream, (void)limit, (void)paired;
}

#endif
