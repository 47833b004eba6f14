// Does to files what its arguments say, one operation after the other, and prints what came of each.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>
#include <wasi/api.h>

static void say(const char *what, int failed) {
    printf("%s\n", failed ? strerror(errno) : what);
}

static void show(const char *path) {
    char text[4096];
    int fd = open(path, O_RDONLY);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (size < 0) {
        say("", 1);
        return;
    }
    text[size] = 0;
    printf("%s\n", text);
}

static void put(const char *path, const char *text, int flags) {
    int fd = open(path, O_WRONLY | flags, 0644);
    say("ok", fd < 0 || write(fd, text, strlen(text)) < 0);
}

static int by_name(const void *left, const void *right) {
    return strcmp(*(char **)left, *(char **)right);
}

static void list(const char *path) {
    DIR *folder = opendir(path);
    char *names[256];
    int count = 0;
    if (!folder) {
        say("", 1);
        return;
    }
    for (struct dirent *entry; count < 256 && (entry = readdir(folder));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            names[count++] = strdup(entry->d_name);
    qsort(names, count, sizeof *names, by_name);
    for (int i = 0; i < count; i++) printf("%s%s", i ? " " : "", names[i]);
    printf("\n");
}

int main(int argc, char **argv) {
    char text[4096];
    struct stat status;
    for (char **at = argv + 1; at < argv + argc;) {
        char *what = *at++;
#define IS(name) !strcmp(what, name)
#define NEXT (*at++)
        if (IS("read")) show(NEXT);
        else if (IS("write")) { char *path = NEXT; put(path, NEXT, O_CREAT | O_TRUNC); }
        else if (IS("append")) { char *path = NEXT; put(path, NEXT, O_APPEND); }
        else if (IS("list")) list(NEXT);
        else if (IS("mkdir")) say("ok", mkdir(NEXT, 0755));
        else if (IS("rmdir")) say("ok", rmdir(NEXT));
        else if (IS("rm")) say("ok", unlink(NEXT));
        else if (IS("mv")) { char *old = NEXT; say("ok", rename(old, NEXT)); }
        else if (IS("ln")) { char *old = NEXT; say("ok", link(old, NEXT)); }
        else if (IS("symlink")) { char *target = NEXT; say("ok", symlink(target, NEXT)); }
        else if (IS("readlink")) {
            ssize_t size = readlink(NEXT, text, sizeof text - 1);
            text[size < 0 ? 0 : size] = 0;
            say(text, size < 0);
        } else if (IS("touch")) say("ok", utime(NEXT, 0));
        else if (IS("stat")) {
            int failed = stat(NEXT, &status);
            snprintf(text, sizeof text, "%lld", (long long)status.st_size);
            say(text, failed);
        } else if (IS("fill")) {  // write so many MiB to a file
            FILE *file = fopen(NEXT, "w");
            long left = atol(NEXT);
            static char block[1 << 20];
            while (file && left > 0 && fwrite(block, sizeof block, 1, file) == 1) left--;
            say("ok", !file || left || fclose(file));
        } else if (IS("open")) {  // a path as it is, below a descriptor, with all rights and links followed
            __wasi_fd_t fd = atoi(NEXT), opened;
            char *path = NEXT;
            errno = __wasi_path_open(fd, 1, path, 0, -1, -1, 0, &opened);
            say("opened", errno);
        } else if (IS("mkfd")) {
            __wasi_fd_t fd = atoi(NEXT);
            errno = __wasi_path_create_directory(fd, NEXT);
            say("ok", errno);
        } else if (IS("name")) {
            __wasi_fd_t fd = atoi(NEXT);
            __wasi_prestat_t found;
            errno = __wasi_fd_prestat_get(fd, &found);
            if (!errno) errno = __wasi_fd_prestat_dir_name(fd, (uint8_t *)text, sizeof text);
            text[errno ? 0 : found.u.dir.pr_name_len] = 0;
            say(text, errno);
        } else {
            printf("what is %s?\n", what);
            return 2;
        }
    }
    return 0;
}
