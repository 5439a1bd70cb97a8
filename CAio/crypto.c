#include "CAio.h"
#include <openssl/evp.h>
#include <sys/random.h>

_Static_assert(EVP_MAX_MD_SIZE <= 64, "mpio_digest promises that 64 bytes are enough");

int mpio_digest(const char *name, const void *bytes, size_t count, uint8_t *out, unsigned *out_count) {
    size_t written = 0;
    *out_count = 0;
    if (!EVP_Q_digest(NULL, name, NULL, bytes, count, out, &written)) return -1;
    *out_count = (unsigned)written;
    return 0;
}

int mpio_random(void *bytes, size_t count) {
    uint8_t *next = bytes;
    while (count > 0) {
        ssize_t step = getrandom(next, count, 0);
        if (step < 0) {
            if (errno == EINTR) continue;
            return -errno;
        }
        next += step;
        count -= (size_t)step;
    }
    return 0;
}
