/* SPDX-License-Identifier: MIT
 *
 * rate.c - how many control messages a client may have looked at, and how many lines of log it may cause
 *
 * Both halves of vfund count lines here, each those that it writes itself.
 *
 * A token bucket per client, so that one who floods the engine waits for himself and not the others for him. Control
 * messages are a matter of opening and closing instances; calls don't come this way, so that nobody in his right mind
 * notices. The buckets aren't kept over the engine's death: a new one begins with full ones.
 */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "../common/conf.h"
#include "rate.h"

#define PER_SECOND 5000u
#define BURST 1000u
#define USERS 64u /* users of the host that are remembered; the one longest unheard of makes room */

struct bucket {
	uint32_t uid;
	uint32_t tokens;
	int64_t filled_ms; /* 0: never used */
	int64_t minute;	   /* of the lines counted */
	uint32_t lines;
};

static struct bucket vms[CONF_CLIENTS]; /* and net clients */
static struct bucket users[USERS];

int64_t
rate_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000 + 1;
}

static struct bucket *
bucket_of(uint32_t vm, uint32_t uid)
{
	struct bucket *oldest = &users[0];

	if (vm != CONF_HOST && vm < CONF_CLIENTS)
		return &vms[vm];
	for (unsigned i = 0; i < USERS; i++) {
		if (users[i].filled_ms && users[i].uid == uid)
			return &users[i];
		if (users[i].filled_ms < oldest->filled_ms)
			oldest = &users[i];
	}
	*oldest = (struct bucket){ .uid = uid, .tokens = BURST, .filled_ms = rate_ms() };
	return oldest;
}

int
rate_take(uint32_t vm, uint32_t uid, unsigned cost)
{
	struct bucket *b = bucket_of(vm, uid);
	int64_t now = rate_ms();
	int64_t more = b->filled_ms ? (now - b->filled_ms) * PER_SECOND / 1000 : BURST;

	b->filled_ms = now;
	b->tokens = more > BURST - b->tokens ? BURST : b->tokens + (uint32_t)more;
	if (b->tokens < cost)
		return 0;
	b->tokens -= cost;
	return 1;
}

static int
line_of(struct bucket *b)
{
	int64_t minute = rate_ms() / 60000 + 1;

	if (b->minute != minute)
		b->lines = 0;
	b->minute = minute;
	if (b->lines > RATE_LINES)
		return 0;
	return b->lines++ < RATE_LINES ? 1 : 2;
}

int
rate_lines(void)
{
	static struct bucket all;

	return line_of(&all);
}

int
rate_line(uint32_t vm, uint32_t uid)
{
	return line_of(bucket_of(vm, uid));
}

void
rate_say(uint32_t vm, uint32_t uid, const char *whose, enum log_level level, const char *fmt, ...)
{
	int may = rate_line(vm, uid);
	char text[512];
	va_list ap;

	if (!may)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (level == LOG_ERR_)
		log_err("%s", text);
	else if (level == LOG_WARN_)
		log_warn("%s", text);
	else
		log_info("%s", text);
	if (may > 1)
		log_warn("%s has caused %d lines within a minute: no more of it for now", whose, RATE_LINES);
}
