/* SPDX-License-Identifier: MIT
 *
 * sanitize.c - the sanitizers' options, compiled into a build with SANITIZE=1
 *
 * Compiled in, since vfund's children get no environment. What a confined process can't do is off: looking for leaks
 * (another thread that traces this one), symbols (files: the report has offsets for addr2line instead). The programs
 * that a test starts itself are not confined and leave an address in every report: t/lib/Vfun.pm switches leaks on for
 * them by ASAN_OPTIONS.
 *
 * Whatever is found ends the process, with a status of its own.
 */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

/* What is freed is kept for a while to see who uses it; 256 MB, the default, is more than an engine may have. */
const char *
__asan_default_options(void)
{
	return "exitcode=99:detect_leaks=0:symbolize=0:quarantine_size_mb=2:color=never";
}

const char *
__ubsan_default_options(void)
{
	return "exitcode=99:symbolize=0:print_stacktrace=1:halt_on_error=1:color=never";
}
