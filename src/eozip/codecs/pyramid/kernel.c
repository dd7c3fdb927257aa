/* The context network of pyramid codecs (docs/pyramid.md, section 9) in 16-bit integers, a few times as fast as numpy.

   Every sum is below 2^31 and every step an integer's, so the numbers are those of stages.py. Products of two 16-bit
   numbers are added to 32 bits in pairs, by instructions of AVX-512 VNNI or AVX2 that do not saturate; with VNNI features and
   activations are bytes, whose products are added four at a time. It takes one factor without sign: features count from -128,
   and what that adds is taken from the biases.

   A line is a row of columns of one pair of channels, 16 bits each in 32 (with VNNI of four where they are bytes). Even and odd columns ("halves") are lines of
   their own, as the checkerboard has them. Products go from lines to [unit][column].                                  */

#include <float.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_MAX 4032       /* of differences and neighbours' values: 63 steps */
#define PREDICTION_MAX 16384 /* 256 steps, and the reach of the squash */
#define BANK 12
#define DETAILS 3
#define OUTPUTS 12
#define COLUMNS 16 /* lines are as long as a multiple of it, and a margin on either side */
#define MARGIN 16
#define GROUP 8 /* units whose sums are made together */

/* Weights: [units / 8][lines][8] pairs of 16 bits, or four bytes; biases int32 [units]; units are padded to a multiple of 8. */
typedef struct {
    int32_t units, lines;
    const int32_t *weights, *bias;
} layer;

typedef struct {
    layer window, known, neighbours, first[2], second[2], out[2];
    layer trunk; /* of as many features as are given; its bias is beside that of each date */
    const int8_t *squash; /* [2 * PREDICTION_MAX + 1] */
} stage;

typedef struct {
    int32_t n, h, w, features; /* dates, rows, columns, channels of features */
    const int32_t *below;      /* [n][h][w] */
    const int8_t *given;       /* [n][features][h][w] */
    const int32_t *biases;     /* [2][n][units] of the trunk, of either colour */
    float *outputs;            /* [n][h][OUTPUTS][half], of the first colour */
    float *predicted;          /* [n][DETAILS][h][w] */
    int32_t *sums;             /* [n][h][units][padded half], of the second colour */
} beginning;

typedef struct {
    int32_t n, h, half, units;
    const int32_t *known; /* [n][DETAILS][h][half] */
    const int32_t *sums;
    float *outputs, *near; /* [n][h][OUTPUTS or DETAILS][half] */
} second;

#ifdef __x86_64__
#include <immintrin.h>

static int padded(int half) { return (half + COLUMNS - 1) / COLUMNS * COLUMNS; }
static int stride_of(int half) { return padded(half) + 2 * MARGIN; } /* columns of a line */

#define PASTE2(a, b) a##_##b
#define PASTE(a, b) PASTE2(a, b)
#define NAMED(name) PASTE(name, VARIANT)

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#define VARIANT vnni
#define VECTOR __m512i
#define WIDE 16
#define AT_ONCE 2 /* vectors of columns; so many sums fit the registers */
#define LOADED(p) _mm512_loadu_si512(p)
#define STORED(p, v) _mm512_storeu_si512(p, v)
#define SPREAD(x) _mm512_set1_epi32(x)
#define ADDED(sum, a, b) _mm512_dpwssd_epi32(sum, a, b)
#define ADDED_BYTES(sum, a, b) _mm512_dpbusd_epi32(sum, a, b)
#define LANES 4
#define NO_FEATURE 128
#include "kernel.inc"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2")
#define VARIANT avx2
#define VECTOR __m256i
#define WIDE 8
#define AT_ONCE 1
#define LOADED(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORED(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define SPREAD(x) _mm256_set1_epi32(x)
#define ADDED(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#define ADDED_BYTES ADDED
#define LANES 2
#define NO_FEATURE 0
#include "kernel.inc"
#pragma GCC pop_options

/* 0: neither set of instructions, 1: AVX2, 2: AVX-512 VNNI; what this machine has at most. */
int eozip_best(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return 2;
    return __builtin_cpu_supports("avx2") ? 1 : 0;
}

/* Numbers of a padded row of sums. */
int eozip_padded(int half) { return padded(half); }

/* Both give 0, or 1 where there is no memory. */
int eozip_start(int variant, const stage *s, const beginning *b) {
    return variant == 2 ? start_vnni(s, b) : start_avx2(s, b);
}

int eozip_step(int variant, const stage *s, const second *b) {
    return variant == 2 ? step_vnni(s, b) : step_avx2(s, b);
}

#else /* what is included below is for any machine */

int eozip_best(void) { return 0; }

#endif

/* Says of which sources this is; see native.py. */
int eozip_stamp(void) { return STAMP; }

#include "coder.inc"
#include "intervals.inc"
#include "series.inc"
#include "levels.inc"
