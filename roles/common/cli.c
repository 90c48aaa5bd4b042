/* SPDX-License-Identifier: MIT
 *
 * cli.c - what the client's commands share
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../roles.h"
#include "cli.h"

void
cli_begin(char **argv, const char *role)
{
	static char name[32];

	snprintf(name, sizeof(name), "vfun %s", role);
	argv[0] = name;
}

int
cli_wrong(const char *role, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "vfun %s: ", role);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ": see vfun %s --help\n", role);
	return EXIT_USAGE;
}

int
cli_status(int err)
{
	switch (err) {
	case 0:
		return EXIT_OK;
	case -EACCES:
		return EXIT_REFUSED;
	case -ENOENT:
		return EXIT_NO_VFUND;
	case -ETIMEDOUT:
		return EXIT_TIMEOUT;
	case -ENODEV:
		return EXIT_NO_PATH;
	case -ECONNRESET:
	case -EPROTO:
		return EXIT_LOST;
	default:
		return EXIT_SYSTEM;
	}
}

int
cli_u64(const char *s, uint64_t *out)
{
	char *end;

	if (!isdigit((unsigned char)s[0]))
		return -EINVAL;
	errno = 0;
	*out = strtoull(s, &end, 10);
	return errno || *end ? -EINVAL : 0;
}

int
cli_size(const char *s, uint64_t *out)
{
	static const char units[] = "KMG";
	char digits[32];
	size_t n = strlen(s);
	const char *unit;
	unsigned shift = 0;

	if (n == 0 || n >= sizeof(digits))
		return -EINVAL;
	strcpy(digits, s);
	unit = strchr(units, toupper((unsigned char)s[n - 1]));
	if (unit && *unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		digits[n - 1] = '\0';
	}
	if (cli_u64(digits, out) || *out > UINT64_MAX >> shift)
		return -EINVAL;
	*out <<= shift;
	return 0;
}

int
cli_seconds(const char *s, unsigned *ms)
{
	char *end;
	double d;

	if (!isdigit((unsigned char)s[0]) && s[0] != '.')
		return -EINVAL;
	d = strtod(s, &end);
	if (*end || d < 0.001 || d > 1e6)
		return -EINVAL;
	*ms = (unsigned)(d * 1000 + 0.5);
	return 0;
}

void
cli_json_string(FILE *to, const char *s)
{
	putc('"', to);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fprintf(to, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			fprintf(to, "\\u%04x", (unsigned)(unsigned char)*s);
		else
			putc(*s, to);
	}
	putc('"', to);
}

int
cli_flush(const char *role)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return EXIT_OK;
	fprintf(stderr, "vfun %s: standard output: %s\n", role, strerror(errno));
	return EXIT_SYSTEM;
}

const char *
cli_target_name(unsigned target)
{
	static const char *const names[] = { "any", "software", "hardware" };

	return target < sizeof(names) / sizeof(names[0]) ? names[target] : "?";
}
