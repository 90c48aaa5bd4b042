/* SPDX-License-Identifier: MIT
 *
 * runtime.c - what a C library is asked for while computing: one thing after the other, by its number
 *
 * The same for C++ and Fortran: runtime.cc, runtime.f90.
 */
#include <complex.h>
#include <ctype.h>
#include <errno.h>
#include <fenv.h>
#include <locale.h>
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <search.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/times.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

#include "../../proto/vfun.h"

#define MANY 100000

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The median of 0..n-1 in some order. */
static double
median(size_t n)
{
	double *d = malloc(n * sizeof(*d));
	double m;

	for (size_t i = 0; i < n; i++)
		d[i] = (double)(i * 7919 % n);
	qsort(d, n, sizeof(*d), compare);
	m = d[n / 2];
	free(d);
	return m;
}

static int
sorts(void)
{
	/* In glibc 2.36 those beyond 1 KiB ask once how much memory there is. */
	double m = median(100) + median(1000) + median(MANY);
	double key = 3, sorted[] = { 1, 2, 3, 4 };

	return m == 50 + 500 + MANY / 2 && bsearch(&key, sorted, 4, sizeof(key), compare) == &sorted[2];
}

static int
memory(void)
{
	char *p = malloc(1);

	for (size_t n = 1; p && n <= 32u << 20; n *= 2) {
		p = realloc(p, n);
		if (p)
			memset(p, 1, n);
	}
	free(p);
	malloc_trim(0);
	p = NULL;
	return !posix_memalign((void **)&p, 4096, 1 << 20) && (free(p), p = calloc(1 << 20, 3)) && (free(p), 1) &&
	       mallinfo2().uordblks > 0;
}

static int
numbers(void)
{
	char text[200];
	char *all = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&all, &len);
	int ok = f && fprintf(f, "%Lg %ls", 1.5L, L"wide") > 0 && !fclose(f) && !strcmp(all, "1.5 wide");

	free(all);
	snprintf(text, sizeof(text), "%g %.17g %a %Lf %'d %e", 0.1, 1 / 3.0, 0.3, 2.5L, 1000000, 1e300);
	return ok && !strncmp(text, "0.1 0.33333333333333331 ", 24) && strtod("1.25e3", NULL) == 1250 &&
	       strtold("0x1p-3", NULL) == 0.125L && printf("%f\n", 1e10) > 0 && fprintf(stderr, "a word\n") > 0;
}

static int
calculates(void)
{
	volatile double x = 0.7;
	double complex z = cexp(x * I) * csqrt(-x);
	double y = sin(x) + cos(x) + tan(x) + exp(x) + log(x) + pow(x, x) + atan2(x, 2) + lgamma(x) + tgamma(x) +
		   erf(x) + cbrt(x) + hypot(x, x) + fma(x, x, x) + fmod(x, 0.3) + j0(x);
	float f = sinf((float)x) + expf((float)x) + powf((float)x, 2.f);
	long double l = sinl(x) + expl(x);

	feclearexcept(FE_ALL_EXCEPT);
	return fesetround(FE_UPWARD) == 0 && fesetround(FE_TONEAREST) == 0 && 1 / (x - x) > 0 &&
	       fetestexcept(FE_DIVBYZERO) && isfinite(y) && isfinite(f) && isfinite((double)l) && isfinite(creal(z));
}

static int
tells_time(void)
{
	struct timespec ts;
	struct timeval tv;
	struct tm tm;
	struct tms t;
	char text[64];
	time_t now = time(NULL);
	int ok = 1;

	for (clockid_t c = CLOCK_REALTIME; c <= CLOCK_BOOTTIME; c++)
		ok &= !clock_gettime(c, &ts) && !clock_getres(c, &ts);
	ok &= !gettimeofday(&tv, NULL) && clock() >= 0 && times(&t) >= 0 && localtime(&now) && localtime_r(&now, &tm);
	ok &= mktime(&tm) == now && strftime(text, sizeof(text), "%c %Z", &tm) > 0 && gmtime(&now) && ctime(&now);
	return ok;
}

static int
draws(void)
{
	char bytes[300];

	srand(1);
	srandom(1);
	srand48(1);
	return rand() >= 0 && random() >= 0 && drand48() < 1 && getentropy(bytes, 64) == 0 &&
	       getrandom(bytes, sizeof(bytes), 0) == sizeof(bytes);
}

static int
speaks(void)
{
	wchar_t wide[8];
	locale_t c = newlocale(LC_ALL_MASK, "C", NULL);
	int ok = c && setlocale(LC_ALL, "") && mbstowcs(wide, "abc", 8) == 3 && strcoll("a", "b") < 0 &&
		 localeconv()->decimal_point[0] == '.' && strerror(ENOMEM) && strerror(999) && strsignal(SIGFPE) &&
		 toupper('a') == 'A' && towupper(L'a') == L'A' && !setenv("A", "b", 1);

	freelocale(c);
	return ok;
}

/* What only asks about this process. */
static int
asks(void)
{
	struct rusage ru;

	return sysconf(_SC_PAGESIZE) > 0 && sysconf(_SC_CLK_TCK) > 0 && getrusage(RUSAGE_SELF, &ru) == 0 &&
	       getpid() > 0 && gettid() > 0 && sched_getcpu() >= 0;
}

static sigjmp_buf back;

static void
jump(int sig)
{
	siglongjmp(back, sig);
}

/* A division by zero that is caught. */
static int
recovers(void)
{
	volatile int zero = 0;
	volatile int r = sigsetjmp(back, 1);

	signal(SIGFPE, jump);
	if (!r)
		r = 7 / zero;
	return r == SIGFPE && signal(SIGFPE, SIG_DFL) == jump;
}

static void
once(void)
{
}

/* Locks of its own, among its threads. */
static int
locks(void)
{
	static pthread_once_t first = PTHREAD_ONCE_INIT;
	pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t c = PTHREAD_COND_INITIALIZER;
	pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
	struct timespec ts;
	sem_t s;
	int ok = !pthread_once(&first, once) && !pthread_mutex_lock(&m) && !pthread_rwlock_rdlock(&rw) &&
		 !pthread_rwlock_unlock(&rw) && !sem_init(&s, 0, 1) && !sem_wait(&s) && !sem_post(&s);

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_nsec += ts.tv_nsec < 990000000 ? 1000000 : 0;
	ok &= pthread_cond_timedwait(&c, &m, &ts) == ETIMEDOUT && !pthread_cond_broadcast(&c);
	return ok && !pthread_mutex_unlock(&m) && !sched_yield();
}

static int
sleeps(void)
{
	const struct timespec ts = { .tv_nsec = 1000 };

	return !usleep(10) && !nanosleep(&ts, NULL);
}

static int (*const thing[])(
    void) = { sorts, memory, numbers, calculates, tells_time, draws, speaks, asks, recovers, locks, sleeps };

#define THINGS (sizeof(thing) / sizeof(thing[0]))

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	uint64_t n = in->arg[0];

	(void)state;
	if (n >= THINGS)
		return vfun_result_put(out, "all", 3);
	return thing[n]() ? vfun_result_put(out, "done", 4) : vfun_refuse(out, "it came out wrong");
}

int
main(int argc, char **argv)
{
	static const struct vfun_program program = { .size = sizeof(program),
		.signature = "n u64 -> out u8[*]",
		.summary = "the C library",
		.call = call,
		.threads = 1 };

	return vfun_serve(&program, argc, argv);
}
