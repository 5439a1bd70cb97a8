// CRC32C, polynomial 0x1EDC6F41, bit-reflected.
//
// The instruction takes 8 bytes per cycle but answers three cycles later, so long inputs run as three
// independent streams A, B, C of equal length n. Appending n zero bytes to a message multiplies its
// register by x^(8n) modulo P; so CRC(A B C) = A·x^(16n) + B·x^(8n) + C, with the factors known at start.
//
// Where the carry-less multiplier takes four words at once (VPCLMULQDQ), half of a long input goes there meanwhile: 128
// bytes are folded onto the next 128, and in the end onto one another.
#include "CAio.h"
#include <pthread.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u

enum { LONG_STREAM = 1024, SHORT_STREAM = 128 };

static uint32_t tables[8][256];
static uint32_t (*chosen)(uint32_t, const uint8_t *, size_t);
static const char *chosen_name;

// One step of x·a modulo P; bit 31 stands for x^0.
static uint32_t times_x(uint32_t a) { return a & 1 ? (a >> 1) ^ POLYNOMIAL : a >> 1; }

static uint32_t power_of_x(unsigned exponent) {
    uint32_t value = 0x80000000u;
    while (exponent--) value = times_x(value);
    return value;
}

static void fill_tables(void) {
    for (unsigned i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++) value = times_x(value);
        tables[0][i] = value;
    }
    for (unsigned i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            tables[k][i] = tables[0][tables[k - 1][i] & 0xff] ^ (tables[k - 1][i] >> 8);
}

static uint32_t by_tables(uint32_t crc, const uint8_t *p, size_t n) {
    for (; n && ((uintptr_t)p & 7); n--) crc = tables[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        word ^= crc;
        crc = tables[7][word & 0xff] ^ tables[6][word >> 8 & 0xff] ^ tables[5][word >> 16 & 0xff]
            ^ tables[4][word >> 24 & 0xff] ^ tables[3][word >> 32 & 0xff] ^ tables[2][word >> 40 & 0xff]
            ^ tables[1][word >> 48 & 0xff] ^ tables[0][word >> 56];
    }
#endif
    while (n--) crc = tables[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
    return crc;
}

#if defined(__x86_64__)
#include <immintrin.h>

// [LONG, SHORT] × [one stream further, two streams further]
static uint32_t factors[2][2];

// crc·factor·x^33: the product of two reflected 32-bit values stands one place off, and the
// instruction multiplies by x^32 as it reduces. The factors have the 33 taken off.
__attribute__((target("sse4.2,pclmul")))
static inline uint64_t moved(uint64_t crc, uint32_t factor) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi32_si128((int)factor), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul")))
static inline uint64_t load(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

__attribute__((target("sse4.2,pclmul")))
static inline uint64_t three_streams(uint64_t crc, const uint8_t *p, size_t length, const uint32_t factor[2]) {
    uint64_t b = 0, c = 0;
    for (size_t i = 0; i < length; i += 8) {
        crc = _mm_crc32_u64(crc, load(p + i));
        b = _mm_crc32_u64(b, load(p + length + i));
        c = _mm_crc32_u64(c, load(p + 2 * length + i));
    }
    return moved(crc, factor[1]) ^ moved(b, factor[0]) ^ c;
}

__attribute__((target("sse4.2,pclmul")))
static uint32_t by_sse42(uint32_t seed, const uint8_t *p, size_t n) {
    uint64_t crc = seed;
    for (; n && ((uintptr_t)p & 7); n--) crc = _mm_crc32_u8((uint32_t)crc, *p++);
    for (; n >= 3 * LONG_STREAM; n -= 3 * LONG_STREAM, p += 3 * LONG_STREAM)
        crc = three_streams(crc, p, LONG_STREAM, factors[0]);
    for (; n >= 3 * SHORT_STREAM; n -= 3 * SHORT_STREAM, p += 3 * SHORT_STREAM)
        crc = three_streams(crc, p, SHORT_STREAM, factors[1]);
    for (; n >= 8; n -= 8, p += 8) crc = _mm_crc32_u64(crc, load(p));
    while (n--) crc = _mm_crc32_u8((uint32_t)crc, *p++);
    return (uint32_t)crc;
}

// A folded part V, then the streams A, B and C. In the time of one fold each stream takes five words.
enum { FOLDS = 64, FOLD_BYTES = 128, FOLDED_PART = FOLDS * FOLD_BYTES, STREAM_STEP = 40, STREAM_PART = FOLDS * STREAM_STEP,
       MIXED_BLOCK = FOLDED_PART + 3 * STREAM_PART };

// One, two and three streams further.
static uint32_t mixed_factors[3];
// For the first and the second word of 16 bytes that move on by 128 bytes, and by 16.
static uint32_t fold_far[2], fold_near[2];

__attribute__((target("sse4.2,pclmul,avx2,vpclmulqdq")))
static inline __m256i folded(__m256i value, __m256i factor, const uint8_t *p) {
    __m256i next = _mm256_loadu_si256((const __m256i *)p);
    return _mm256_xor_si256(next, _mm256_xor_si256(_mm256_clmulepi64_epi128(value, factor, 0x00),
                                                   _mm256_clmulepi64_epi128(value, factor, 0x11)));
}

__attribute__((target("sse4.2,pclmul,avx2,vpclmulqdq")))
static inline __m128i folded_near(__m128i value, __m128i factor, __m128i next) {
    return _mm_xor_si128(next, _mm_xor_si128(_mm_clmulepi64_si128(value, factor, 0x00),
                                             _mm_clmulepi64_si128(value, factor, 0x11)));
}

__attribute__((target("sse4.2,pclmul,avx2,vpclmulqdq")))
static uint64_t mixed_block(uint64_t crc, const uint8_t *p) {
    const uint8_t *v = p, *s = p + FOLDED_PART;
    uint64_t a = 0, b = 0, c = 0;
    const __m256i far = _mm256_set_epi64x(fold_far[1], fold_far[0], fold_far[1], fold_far[0]);
    __m256i lanes[4];
    for (int k = 0; k < 4; k++) lanes[k] = _mm256_loadu_si256((const __m256i *)(v + 32 * k));
    lanes[0] = _mm256_xor_si256(lanes[0], _mm256_set_epi64x(0, 0, 0, (long long)crc));
    for (int i = 0;;) {
        for (int word = 0; word < STREAM_STEP; word += 8) {
            a = _mm_crc32_u64(a, load(s + word));
            b = _mm_crc32_u64(b, load(s + STREAM_PART + word));
            c = _mm_crc32_u64(c, load(s + 2 * STREAM_PART + word));
        }
        if (++i == FOLDS) break;
        s += STREAM_STEP;
        v += FOLD_BYTES;
        for (int k = 0; k < 4; k++) lanes[k] = folded(lanes[k], far, v + 32 * k);
    }
    const __m128i near = _mm_set_epi64x(fold_near[1], fold_near[0]);
    __m128i sum = _mm256_castsi256_si128(lanes[0]);
    sum = folded_near(sum, near, _mm256_extracti128_si256(lanes[0], 1));
    for (int k = 1; k < 4; k++) {
        sum = folded_near(sum, near, _mm256_castsi256_si128(lanes[k]));
        sum = folded_near(sum, near, _mm256_extracti128_si256(lanes[k], 1));
    }
    uint64_t first = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(sum));
    first = _mm_crc32_u64(first, (uint64_t)_mm_extract_epi64(sum, 1));
    return moved(first, mixed_factors[2]) ^ moved(a, mixed_factors[1]) ^ moved(b, mixed_factors[0]) ^ c;
}

static uint32_t by_vpclmul(uint32_t seed, const uint8_t *p, size_t n) {
    uint64_t crc = seed;
    for (; n >= MIXED_BLOCK; n -= MIXED_BLOCK, p += MIXED_BLOCK) crc = mixed_block(crc, p);
    return by_sse42((uint32_t)crc, p, n);
}

static void choose_folding(void) {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("vpclmulqdq")) return;
    for (unsigned streams = 1; streams <= 3; streams++)
        mixed_factors[streams - 1] = power_of_x(8 * STREAM_PART * streams - 33);
    fold_far[0] = power_of_x(8 * FOLD_BYTES + 31);
    fold_far[1] = power_of_x(8 * FOLD_BYTES - 33);
    fold_near[0] = power_of_x(128 + 31);
    fold_near[1] = power_of_x(128 - 33);
    chosen = by_vpclmul;
    chosen_name = "sse4.2+vpclmulqdq";
}

static void choose_for_machine(void) {
    if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("pclmul")) return;
    const unsigned lengths[2] = {LONG_STREAM, SHORT_STREAM};
    for (int i = 0; i < 2; i++)
        for (unsigned streams = 1; streams <= 2; streams++)
            factors[i][streams - 1] = power_of_x(8 * lengths[i] * streams - 33);
    chosen = by_sse42;
    chosen_name = "sse4.2+pclmul";
    choose_folding();
}

#elif defined(__aarch64__)
#include <sys/auxv.h>

#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif

static uint32_t factors[2];

// a·b modulo P, by shifting and adding: twice per 3 KiB it costs little and needs no PMULL.
static uint32_t product(uint32_t a, uint32_t b) {
    uint32_t sum = 0;
    for (uint32_t bit = 0x80000000u; bit; bit >>= 1) {
        if (a & bit) sum ^= b;
        b = times_x(b);
    }
    return sum;
}

__attribute__((target("crc")))
static uint32_t by_armv8(uint32_t crc, const uint8_t *p, size_t n) {
    for (; n && ((uintptr_t)p & 7); n--) crc = __builtin_arm_crc32cb(crc, *p++);
    for (; n >= 3 * LONG_STREAM; n -= 3 * LONG_STREAM, p += 3 * LONG_STREAM) {
        uint32_t b = 0, c = 0;
        for (size_t i = 0; i < LONG_STREAM; i += 8) {
            uint64_t words[3];
            memcpy(&words[0], p + i, 8);
            memcpy(&words[1], p + LONG_STREAM + i, 8);
            memcpy(&words[2], p + 2 * LONG_STREAM + i, 8);
            crc = __builtin_arm_crc32cd(crc, words[0]);
            b = __builtin_arm_crc32cd(b, words[1]);
            c = __builtin_arm_crc32cd(c, words[2]);
        }
        crc = product(crc, factors[1]) ^ product(b, factors[0]) ^ c;
    }
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        crc = __builtin_arm_crc32cd(crc, word);
    }
    while (n--) crc = __builtin_arm_crc32cb(crc, *p++);
    return crc;
}

static void choose_for_machine(void) {
    if (!(getauxval(AT_HWCAP) & HWCAP_CRC32)) return;
    factors[0] = power_of_x(8 * LONG_STREAM);
    factors[1] = power_of_x(16 * LONG_STREAM);
    chosen = by_armv8;
    chosen_name = "armv8";
}

#else
static void choose_for_machine(void) {}
#endif

// Before main, so that the hot path needs no once-check.
__attribute__((constructor)) static void choose(void) {
    fill_tables();
    chosen = by_tables;
    chosen_name = "table";
    choose_for_machine();
}

uint32_t mpio_crc32c(uint32_t crc, const void *bytes, size_t count) { return chosen(crc, bytes, count); }
uint32_t mpio_crc32c_portable(uint32_t crc, const void *bytes, size_t count) { return by_tables(crc, bytes, count); }
const char *mpio_crc32c_implementation(void) { return chosen_name; }
