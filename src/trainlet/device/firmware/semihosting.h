/* Semihosting (Arm IHI 0084, RISC-V semihosting 0.4): files and the console of whoever debugs or emulates the board. */
#ifndef TL_SEMIHOSTING_H
#define TL_SEMIHOSTING_H

#include <stdint.h>

enum { TL_FILE_READ = 1, TL_FILE_UPDATE = 3, TL_FILE_WRITE = 5 };

/* A handle, or -1. name is `length` characters. */
int32_t tl_file_open(const char *name, uint32_t length, uint32_t mode);
void tl_file_close(int32_t handle);

/* Number of bytes that are missing: 0 is success. */
uint32_t tl_file_read(int32_t handle, void *to, uint32_t size);
uint32_t tl_file_write(int32_t handle, const void *from, uint32_t size);

/* The next access is at byte `to` of the file: 0 is success. */
int32_t tl_file_seek(int32_t handle, uint32_t to);

/* A text that ends in 0, to the console. */
void tl_console(const char *text);

/* Ends the run. */
void tl_exit(uint32_t code) __attribute__((noreturn));

#endif
