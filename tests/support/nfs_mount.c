/* A mount of an NFS export without the kernel's client: FUSE in front of libnfs, nothing cached, no locks of its own.
 * nfs_mount URL FOLDER -f -s ; see tests/support/nfs.py. */
#define FUSE_USE_VERSION 31
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <nfsc/libnfs.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

static struct nfs_context *nfs;
#define FILE_OF(info) ((struct nfsfh *)(info)->fh)

static int get_attributes(const char *path, struct stat *out, struct fuse_file_info *info) {
    struct nfs_stat_64 found;
    int failed = info && info->fh ? nfs_fstat64(nfs, FILE_OF(info), &found) : nfs_lstat64(nfs, path, &found);
    if (failed < 0) return failed;
    memset(out, 0, sizeof *out);
    out->st_ino = found.nfs_ino;
    out->st_mode = found.nfs_mode;
    out->st_nlink = found.nfs_nlink;
    out->st_uid = found.nfs_uid;
    out->st_gid = found.nfs_gid;
    out->st_size = found.nfs_size;
    out->st_blksize = found.nfs_blksize;
    out->st_blocks = found.nfs_blocks;
    out->st_mtim = (struct timespec){found.nfs_mtime, found.nfs_mtime_nsec};
    out->st_ctim = (struct timespec){found.nfs_ctime, found.nfs_ctime_nsec};
    return 0;
}

static int read_folder(const char *path, void *out, fuse_fill_dir_t fill, off_t at, struct fuse_file_info *info,
                       enum fuse_readdir_flags flags) {
    struct nfsdir *folder;
    int failed = nfs_opendir(nfs, path, &folder);
    if (failed < 0) return failed;
    for (struct nfsdirent *one; (one = nfs_readdir(nfs, folder));) fill(out, one->name, NULL, 0, 0);
    nfs_closedir(nfs, folder);
    return 0;
}

static int open_file(const char *path, struct fuse_file_info *info) {
    struct nfsfh *file;
    int failed = nfs_open(nfs, path, info->flags & ~(O_CREAT | O_EXCL | O_APPEND), &file);
    info->fh = (uint64_t)file;
    return failed < 0 ? failed : 0;
}

static int create_file(const char *path, mode_t mode, struct fuse_file_info *info) {
    struct nfsfh *file;
    int failed = nfs_creat(nfs, path, mode & 07777, &file); /* CREATE of mode GUARDED: an O_EXCL */
    if (failed == -EEXIST && !(info->flags & O_EXCL)) return open_file(path, info);
    info->fh = (uint64_t)file;
    return failed < 0 ? failed : 0;
}

/* libnfs 4.0 says EFAULT of every read and write that the server refuses, also of one in a file that another client
 * replaced, which is ESTALE to a kernel's client: asked for its attributes, the server says so again. */
static int moved(int done, struct nfsfh *file) {
    struct nfs_stat_64 found;
    if (done != -EFAULT) return done;
    int failed = nfs_fstat64(nfs, file, &found);
    return failed < 0 ? failed : -EIO;
}

static int read_file(const char *path, char *out, size_t size, off_t at, struct fuse_file_info *info) {
    return moved(nfs_pread(nfs, FILE_OF(info), at, size, out), FILE_OF(info));
}

static int write_file(const char *path, const char *in, size_t size, off_t at, struct fuse_file_info *info) {
    return moved(nfs_pwrite(nfs, FILE_OF(info), at, size, (void *)in), FILE_OF(info));
}

static int close_file(const char *path, struct fuse_file_info *info) { return nfs_close(nfs, FILE_OF(info)); }

static int sync_file(const char *path, int data_alone, struct fuse_file_info *info) {
    return nfs_fsync(nfs, FILE_OF(info));
}

static int sync_folder(const char *path, int data_alone, struct fuse_file_info *info) { return 0; }

static int set_size(const char *path, off_t size, struct fuse_file_info *info) {
    return info && info->fh ? nfs_ftruncate(nfs, FILE_OF(info), size) : nfs_truncate(nfs, path, size);
}

static int rename_file(const char *from, const char *to, unsigned flags) {
    return flags ? -EINVAL : nfs_rename(nfs, from, to);
}

static int delete_file(const char *path) { return nfs_unlink(nfs, path); }

static int make_folder(const char *path, mode_t mode) { return nfs_mkdir2(nfs, path, mode & 07777); }

static int delete_folder(const char *path) { return nfs_rmdir(nfs, path); }

static int set_mode(const char *path, mode_t mode, struct fuse_file_info *info) {
    return nfs_chmod(nfs, path, mode & 07777);
}

static const struct fuse_operations OPERATIONS = {
    .getattr = get_attributes,
    .readdir = read_folder,
    .open = open_file,
    .create = create_file,
    .read = read_file,
    .write = write_file,
    .release = close_file,
    .fsync = sync_file,
    .fsyncdir = sync_folder,
    .truncate = set_size,
    .rename = rename_file,
    .unlink = delete_file,
    .mkdir = make_folder,
    .rmdir = delete_folder,
    .chmod = set_mode,
};

int main(int count, char **words) {
    nfs = nfs_init_context();
    struct nfs_url *url = nfs_parse_url_dir(nfs, words[1]);
    if (!url || nfs_mount(nfs, url->server, url->path)) {
        fprintf(stderr, "%s: %s\n", words[1], nfs_get_error(nfs));
        return 1;
    }
    words[1] = words[0];
    return fuse_main(count - 1, words + 1, &OPERATIONS, NULL);
}
