/* SPDX-License-Identifier: MIT
 *
 * model.h - the test device: what its parts know of each other
 */
#ifndef VFUN_XRT_MODEL_H
#define VFUN_XRT_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KERNELS 3    /* one compute unit for each */
#define REG_WORDS 16 /* a unit's register map: 0x00 control, 0x10... arguments */

#define AP_START 1
#define AP_DONE 2
#define AP_IDLE 4

enum run_state {
	RUN_NONE,
	RUN_QUEUED,  /* the client reads "busy" */
	RUN_RUNNING, /* the unit is this client's; it reads "busy" */
	RUN_DONE,    /* it reads "done" once, then "idle" */
};

/* One client's view of one compute unit. */
struct view {
	uint32_t regs[REG_WORDS];
	enum run_state state;
	uint64_t ticket; /* the order in the unit's queue; also the run's number in the log */
};

/* A process, with all its connections. */
struct client {
	unsigned int number; /* in the log */
	pid_t pid;
	unsigned int connections;
	bool loaded;
	char folder[256]; /* its own, for the files behind its buffers */
	struct view views[KERNELS];
	struct client *next;
};

/* model.c */
extern struct client *clients;
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* model-fault.c: the fault that the test asks for now, and its number */
enum fault {
	FAULT_NONE,
	FAULT_SLOW,
	FAULT_HANG,
	FAULT_DIE,
	FAULT_DIE_LOAD,
	FAULT_BAD_SYNC,
	FAULT_GARBAGE,
	FAULT_REFUSE_LOAD,
	FAULT_FAIL_ALLOC,
	FAULT_NO_WRITE,
};
void fault_from(const char *path);
enum fault fault_now(unsigned int *number);

/* model-memory.c */
bool memory_init(size_t size);
bool memory_alloc(const struct client *c, uint64_t address, uint64_t size);
bool memory_free(const struct client *c, uint64_t address);
void memory_drop(const struct client *c);
void *memory_at(const struct client *c, uint64_t address, uint64_t size);

/* model-load.c */
bool load_xclbin(struct client *c, const char *metadata, const char *bitstream);
void load_drop(struct client *c);

/* model-units.c */
void units_place(unsigned int kernel, uint64_t base);
void units_clear(void);
bool units_write(struct client *c, uint64_t address, const uint8_t *data, size_t size);
bool units_read(struct client *c, uint64_t address, uint8_t *data, size_t size);
void units_drop(struct client *c);
int units_work(void);
bool bus_read(unsigned int kernel, uint64_t address, void *data, size_t size);
bool bus_write(unsigned int kernel, uint64_t address, const void *data, size_t size);

/* model-rpc.c */
struct conn;
struct conn *conn_new(int fd, struct client *c);
bool conn_wants_write(const struct conn *conn);
bool conn_ready(struct conn *conn);
struct client *conn_end(struct conn *conn);

/* The kernels: model-c.c or model-rtl.cc. A step is some work; it returns true when the run is finished. */
extern const char *const kernels_kind;
void kernels_start(unsigned int kernel, const uint32_t regs[REG_WORDS]);
bool kernels_step(unsigned int kernel, uint64_t *cycles);
void kernels_reset(unsigned int kernel);

#ifdef __cplusplus
}
#endif
#endif
