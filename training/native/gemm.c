/* Matrix products for a training step on CPUs with AVX512-BF16: float32 in and out, factors rounded to bfloat16, sums in
 * float32, as a GPU's tensor cores have it.
 *
 * Exports cblas_sgemm in front of the BLAS that JESSY_GEMM_BLAS names; what is small or of another layout goes there.
 *
 * The scheme is that of Goto and van de Geijn (2008): both factors are packed into panels that the inner kernel reads in
 * order, blocked so that one panel of B stays in the first cache and a block of A in the second.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 8, COLUMNS = 48, DEPTH = 512, ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };

typedef void (*sgemm_t)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);

static sgemm_t other;

__attribute__((constructor)) static void find_other(void) {
    const char *path = getenv("JESSY_GEMM_BLAS");
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    other = library ? (sgemm_t)dlsym(library, "cblas_sgemm") : NULL;
    if (!other) {
        fprintf(stderr, "JESSY_GEMM_BLAS is '%s', which has no cblas_sgemm: %s\n", path ? path : "", dlerror());
        abort();
    }
}

/* Two bfloat16 of each of 16 columns: `low` in the lower half of each lane, `high` in the upper. */
static inline __m512i pairs(__m512 low, __m512 high) {
    __m512i first = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low));
    __m512i second = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high));
    return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
}

/* Panels of `width` lines of a matrix whose lines are `count` and whose depth is k: panel, pair of depth, line. Missing
 * lines and an odd depth are zeros. `along` says that the numbers of one line stand side by side. */
static void pack(uint32_t *out, const float *in, int stride, int count, int k, int width, int along) {
    int deep = (k + 1) / 2;
    for (int first = 0; first < count; first += width, out += (size_t)deep * width) {
        int lines = count - first < width ? count - first : width;
        if (lines < width) memset(out, 0, sizeof(uint32_t) * deep * width);
        if (along) {
            for (int line = 0; line < lines; line++) {
                const float *row = in + (size_t)(first + line) * stride;
                int at = 0;
                for (; at + 32 <= k; at += 32) {
                    uint32_t made[16];
                    _mm512_storeu_si512(made, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + at + 16), _mm512_loadu_ps(row + at)));
                    uint32_t *place = out + (size_t)(at / 2) * width + line;
                    for (int pair = 0; pair < 16; pair++) place[(size_t)pair * width] = made[pair];
                }
                for (; at < k; at += 2) {
                    __m512 low = _mm512_set1_ps(row[at]), high = _mm512_set1_ps(at + 1 < k ? row[at + 1] : 0.0f);
                    out[(size_t)(at / 2) * width + line] = (uint32_t)_mm512_cvtsi512_si32(pairs(low, high));
                }
            }
        } else {
            for (int at = 0; at < k; at += 2) {
                const float *low = in + (size_t)at * stride + first, *high = low + stride;
                uint32_t *place = out + (size_t)(at / 2) * width;
                for (int line = 0; line < lines; line += 16) {
                    int left = lines - line;
                    __mmask16 mask = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
                    __m512 second = at + 1 < k ? _mm512_maskz_loadu_ps(mask, high + line) : _mm512_setzero_ps();
                    _mm512_mask_storeu_epi32(place + line, mask, pairs(_mm512_maskz_loadu_ps(mask, low + line), second));
                }
            }
        }
    }
}

#define ROW(row, one, two, three)                                                                                       \
    "vpbroadcastd 4*" #row "(%[a]), %%zmm3\n"                                                                            \
    "vdpbf16ps %%zmm0, %%zmm3, %%zmm" #one "\nvdpbf16ps %%zmm1, %%zmm3, %%zmm" #two "\nvdpbf16ps %%zmm2, %%zmm3, %%zmm" #three "\n"
#define CLEAR(one, two, three)                                                                                          \
    "vpxord %%zmm" #one ", %%zmm" #one ", %%zmm" #one "\nvpxord %%zmm" #two ", %%zmm" #two ", %%zmm" #two                \
    "\nvpxord %%zmm" #three ", %%zmm" #three ", %%zmm" #three "\n"
#define KEEP(row, one, two, three)                                                                                      \
    "vmovaps %%zmm" #one ", 192*" #row "(%[out])\nvmovaps %%zmm" #two ", 192*" #row "+64(%[out])\n"                     \
    "vmovaps %%zmm" #three ", 192*" #row "+128(%[out])\n"

/* out[8][48] = a b over `deep` pairs. In assembler: gcc 12 keeps the 24 sums in registers and the factors on the stack, which
 * was half as fast (200 against 380 GFLOP/s). */
static void products(long deep, const uint32_t *a, const uint32_t *b, float *out) {
    __asm__ volatile(
        CLEAR(8, 9, 10) CLEAR(11, 12, 13) CLEAR(14, 15, 16) CLEAR(17, 18, 19) CLEAR(20, 21, 22) CLEAR(23, 24, 25) CLEAR(26, 27, 28) CLEAR(29, 30, 31)
        ".p2align 5\n1:\n"
        "vmovups (%[b]), %%zmm0\nvmovups 64(%[b]), %%zmm1\nvmovups 128(%[b]), %%zmm2\n"
        ROW(0, 8, 9, 10) ROW(1, 11, 12, 13) ROW(2, 14, 15, 16) ROW(3, 17, 18, 19) ROW(4, 20, 21, 22) ROW(5, 23, 24, 25) ROW(6, 26, 27, 28) ROW(7, 29, 30, 31)
        "add $32, %[a]\nadd $192, %[b]\ndec %[deep]\njnz 1b\n"
        KEEP(0, 8, 9, 10) KEEP(1, 11, 12, 13) KEEP(2, 14, 15, 16) KEEP(3, 17, 18, 19) KEEP(4, 20, 21, 22) KEEP(5, 23, 24, 25) KEEP(6, 26, 27, 28) KEEP(7, 29, 30, 31)
        : [deep] "+r"(deep), [a] "+r"(a), [b] "+r"(b)
        : [out] "r"(out)
        : "memory", "cc", "zmm0", "zmm1", "zmm2", "zmm3", "zmm8", "zmm9", "zmm10", "zmm11", "zmm12", "zmm13", "zmm14", "zmm15", "zmm16", "zmm17",
          "zmm18", "zmm19", "zmm20", "zmm21", "zmm22", "zmm23", "zmm24", "zmm25", "zmm26", "zmm27", "zmm28", "zmm29", "zmm30", "zmm31");
}

/* c = alpha * a b + beta * c, of which `high` rows and `wide` columns are there. */
static void tile(int deep, const uint32_t *a, const uint32_t *b, float alpha, float beta, float *c, int stride, int high, int wide) {
    float found[ROWS * COLUMNS] __attribute__((aligned(64)));
    products(deep, a, b, found);
    __m512 scale = _mm512_set1_ps(alpha), keep = _mm512_set1_ps(beta);
    for (int row = 0; row < high; row++)
        for (int column = 0; column < wide; column += 16) {
            __mmask16 mask = wide - column >= 16 ? 0xffff : (__mmask16)((1u << (wide - column)) - 1);
            float *place = c + (size_t)row * stride + column;
            __m512 value = _mm512_mul_ps(_mm512_load_ps(found + row * COLUMNS + column), scale);
            /* Not read where beta is 0: what stands there may be no number. */
            if (beta != 0.0f) value = _mm512_fmadd_ps(keep, _mm512_maskz_loadu_ps(mask, place), value);
            _mm512_mask_storeu_ps(place, mask, value);
        }
}

static __thread uint32_t *space;
static __thread size_t held;

static uint32_t *packed(size_t words) {
    if (held < words) {
        free(space);
        space = aligned_alloc(64, (words * sizeof(uint32_t) + 63) / 64 * 64);
        held = space ? words : 0;
    }
    return space;
}

void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb, float beta,
                 float *c, int ldc) {
    int panels_a = (m + ROWS - 1) / ROWS, panels_b = (n + COLUMNS - 1) / COLUMNS, most = ((k < DEPTH ? k : DEPTH) + 1) / 2;
    size_t words = ((size_t)panels_a * ROWS + (size_t)panels_b * COLUMNS) * most;
    uint32_t *mine = order == ROW_MAJOR && m >= 16 && n >= 32 && k >= 32 && (double)m * n * k >= 1 << 20 ? packed(words) : NULL;
    if (!mine) {
        other(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
        return;
    }
    uint32_t *left = mine, *right = mine + (size_t)panels_a * ROWS * most;
    for (int start = 0; start < k; start += DEPTH) {
        int depth = k - start < DEPTH ? k - start : DEPTH, deep = (depth + 1) / 2;
        pack(left, ta == PLAIN ? a + start : a + (size_t)start * lda, lda, m, depth, ROWS, ta == PLAIN);
        pack(right, tb == PLAIN ? b + (size_t)start * ldb : b + start, ldb, n, depth, COLUMNS, tb != PLAIN);
        float before = start ? 1.0f : beta;
        for (int j = 0; j < panels_b; j++)
            for (int i = 0; i < panels_a; i++) {
                const uint32_t *one = left + (size_t)i * ROWS * deep, *two = right + (size_t)j * COLUMNS * deep;
                int high = m - i * ROWS, wide = n - j * COLUMNS;
                float *place = c + (size_t)i * ROWS * ldc + j * COLUMNS;
                tile(deep, one, two, alpha, before, place, ldc, high < ROWS ? high : ROWS, wide < COLUMNS ? wide : COLUMNS);
            }
    }
}
