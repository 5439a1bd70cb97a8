#include "CAio.h"
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

// From linux/fs.h, which cannot be included beside libaio's users.
#define MPIO_BLKSSZGET _IO(0x12, 104)
#define MPIO_BLKGETSIZE64 _IOR(0x12, 114, size_t)
#define MPIO_BLKZEROOUT _IO(0x12, 127)

int mpio_open(const char *path, bool read_only, bool direct, bool create) {
    int flags = O_CLOEXEC | (read_only ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0) | (create ? O_CREAT : 0);
    int fd;
    do fd = open(path, flags, 0644);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

// What O_DIRECT asks of offsets and lengths in a file; 512 where the file system does not say.
static uint32_t file_alignment(int fd) {
#ifdef STATX_DIOALIGN
    struct statx extended;
    memset(&extended, 0, sizeof extended);
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &extended) == 0 && (extended.stx_mask & STATX_DIOALIGN)
        && extended.stx_dio_offset_align) {
        uint32_t memory = extended.stx_dio_mem_align, offset = extended.stx_dio_offset_align;
        return memory > offset ? memory : offset;
    }
#endif
    return 512;
}

int mpio_file_properties(int fd, struct mpio_file_properties *out) {
    memset(out, 0, sizeof *out);
    struct stat status;
    if (fstat(fd, &status) < 0) return -errno;
    out->is_regular = S_ISREG(status.st_mode);
    out->is_block_device = S_ISBLK(status.st_mode);
    out->device = status.st_dev;
    out->inode = status.st_ino;
    out->byte_count = status.st_size < 0 ? 0 : (uint64_t)status.st_size;
    out->block_size = 512;
    if (out->is_block_device) {
        int block = 0;
        uint64_t bytes = 0;
        if (ioctl(fd, MPIO_BLKSSZGET, &block) < 0 || ioctl(fd, MPIO_BLKGETSIZE64, &bytes) < 0) return -errno;
        out->block_size = (uint32_t)block;
        out->byte_count = bytes;
        out->device = 0;
        out->inode = status.st_rdev;
    }
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -errno;
    if (!(flags & O_DIRECT)) out->direct_alignment = 1;
    else out->direct_alignment = out->is_block_device ? out->block_size : file_alignment(fd);
    return 0;
}

int mpio_deallocate(int fd, bool is_block_device, uint64_t offset, uint64_t count) {
    int result;
    do result = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)count);
    while (result < 0 && errno == EINTR);
    if (result == 0) return 0;
    if (is_block_device && errno == EOPNOTSUPP) {
        uint64_t range[2] = {offset, count};
        if (ioctl(fd, MPIO_BLKZEROOUT, range) == 0) return 0;
    }
    return -errno;
}

long mpio_find_extent(int fd, bool hole, uint64_t offset) {
    // Nothing else uses the descriptor's own position.
    off_t found = lseek(fd, (off_t)offset, hole ? SEEK_HOLE : SEEK_DATA);
    return found < 0 ? -(long)errno : (long)found;
}

long mpio_read_fully(int fd, void *into, size_t count, uint64_t offset) {
    size_t done = 0;
    while (done < count) {
        ssize_t step = pread(fd, (char *)into + done, count - done, (off_t)(offset + done));
        if (step < 0 && errno == EINTR) continue;
        if (step < 0) return -(long)errno;
        if (step == 0) break;
        done += (size_t)step;
    }
    return (long)done;
}

long mpio_write_fully(int fd, const void *from, size_t count, uint64_t offset) {
    size_t done = 0;
    while (done < count) {
        ssize_t step = pwrite(fd, (const char *)from + done, count - done, (off_t)(offset + done));
        if (step < 0 && errno == EINTR) continue;
        if (step < 0) return -(long)errno;
        if (step == 0) break;
        done += (size_t)step;
    }
    return (long)done;
}

int mpio_sync_data(int fd) {
    int result;
    do result = fdatasync(fd);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}
