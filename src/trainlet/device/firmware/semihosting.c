#include "semihosting.h"

enum { SYS_OPEN = 0x01, SYS_CLOSE = 0x02, SYS_WRITE0 = 0x04, SYS_WRITE = 0x05, SYS_READ = 0x06 };
enum { SYS_SEEK = 0x0a, SYS_EXIT = 0x20 };
enum { STOPPED_APPLICATION_EXIT = 0x20026 };

typedef uint32_t address;

/* Not inlined: the RISC-V marker must not straddle a page, and a counter finds the trap in one place. */
static int32_t __attribute__((noinline)) call(uint32_t operation, const void *arguments) {
#if defined(__riscv)
  register uint32_t a0 __asm__("a0") = operation;
  register const void *a1 __asm__("a1") = arguments;
  __asm__ volatile(
      ".option push\n"
      ".option norvc\n"
      ".balign 16\n"
      "slli x0, x0, 0x1f\n"
      "ebreak\n"
      "srai x0, x0, 7\n"
      ".option pop\n"
      : "+r"(a0)
      : "r"(a1)
      : "memory");
  return (int32_t)a0;
#else
  register uint32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = arguments;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return (int32_t)r0;
#endif
}

int32_t tl_file_open(const char *name, uint32_t length, uint32_t mode) {
  const address block[3] = {(address)name, mode, length};
  return call(SYS_OPEN, block);
}

void tl_file_close(int32_t handle) {
  const address block[1] = {(address)handle};
  call(SYS_CLOSE, block);
}

uint32_t tl_file_read(int32_t handle, void *to, uint32_t size) {
  const address block[3] = {(address)handle, (address)to, size};
  return (uint32_t)call(SYS_READ, block);
}

uint32_t tl_file_write(int32_t handle, const void *from, uint32_t size) {
  const address block[3] = {(address)handle, (address)from, size};
  return (uint32_t)call(SYS_WRITE, block);
}

int32_t tl_file_seek(int32_t handle, uint32_t to) {
  const address block[2] = {(address)handle, to};
  return call(SYS_SEEK, block);
}

void tl_console(const char *text) { call(SYS_WRITE0, text); }

void tl_exit(uint32_t code) {
  const address block[2] = {STOPPED_APPLICATION_EXIT, code};
  call(SYS_EXIT, block);
  for (;;) {
  }
}
