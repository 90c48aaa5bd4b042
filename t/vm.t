#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# vm.t - a throw-away VM runs a command, gives back both streams byte for byte and its status, and leaves nothing
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('qemu', 'kernel');

# A static program for the guest: what it is told to do, it does.
spew(tmp('prog.c'), <<'END');
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int
main(int argc, char **argv)
{
	unsigned x = 1;
	int c;

	if (argc < 2)
		return 9;
	if (!strcmp(argv[1], "spew"))
		for (int i = 0; i < 262144; i++) {
			x = x * 1664525 + 1013904223;
			putchar((int)(x >> 24));
			if (i % 64 == 0)
				fputc((int)(x >> 16 & 255), stderr);
		}
	if (!strcmp(argv[1], "cat"))
		while ((c = getchar()) != EOF)
			putchar(c);
	if (!strcmp(argv[1], "id"))
		printf("%d:%d %s\n", (int)getuid(), (int)getgid(), getenv("WORD") ? getenv("WORD") : "");
	if (!strcmp(argv[1], "die"))
		raise(SIGSEGV);
	if (!strcmp(argv[1], "hang"))
		for (;;)
			pause();
	for (int i = 2; !strcmp(argv[1], "args") && i < argc; i++)
		printf("[%s]", argv[i]);
	return argc > 2 ? atoi(argv[2]) : 0;
}
END
is(run(['gcc', '-O1', '-static', '-o', tmp('prog'), tmp('prog.c')])->{status}, 0, 'a program for the guest');

my @vm = ($VFUN, 'vm', '--path', 'none', '--timeout', 100, guest_args('own'), '--add', tmp('prog') . ':/bin/prog');

sub nothing_left {
	my ($what) = @_;
	wait_until(3, sub { !descendants() });
	is_deeply([descendants()], [], "$what: no process is left");
	return;
}

my $r = run([@vm, '--', 'vfun', '--version']);
is($r->{status}, 0, 'vfun --version in a guest') or diag($r->{err});
is($r->{out}, vfun('--version')->{out}, 'says what it says here');
is($r->{err}, '', 'and nothing on standard error');
diag(sprintf 'from start to end: %.1f s', $r->{seconds});

my $here = run([tmp('prog'), 'spew', 42]);
$r = run([@vm, '--', 'prog', 'spew', 42]);
is($r->{status}, 42, "the command's status");
ok($r->{out} eq $here->{out}, '256 KiB of binary standard output, byte for byte');
ok($r->{err} eq $here->{err}, '4 KiB of binary standard error, byte for byte');

is(run([@vm, '--', 'prog', 'die'])->{status}, 139, '128 + the signal that ended it');
$r = run([@vm, '--', 'nosuch']);
is($r->{status}, 127, 'no such command');
like($r->{err}, qr/^vfun init: nosuch: No such file/, 'is said in one line');

$r = run([@vm, '--stdin', '-', '--', 'prog', 'cat'], stdin => "\0binary\n\xff");
is($r->{out}, "\0binary\n\xff", 'standard input');
$r = run([@vm, '--env', 'WORD=hello', '--', '/bin/prog', 'id']);
is($r->{out}, "0:0 hello\n", '--env, and a path');
$r = run([@vm, '--', 'prog', 'args', '0', 'two words', "new\nline", '']);
is($r->{out}, "[0][two words][new\nline][]", 'arguments arrive as they are');

spew(tmp('script'), <<'END');
# a comment

echo hello   world
as 1000:1001 prog id
! prog fail 1
!139 prog die
prog hang &
prog hang &
sleep 0.1
kill %1
!143 wait %1
kill %2 KILL
!137 wait %2
prog id 0 &
wait %3
prog args 0 last
prog id 7
echo not reached
END
$r = run([@vm, '--script', tmp('script')]);
is($r->{status}, 7, 'a script ends with the status of its first failing line') or diag($r->{err});
is($r->{out}, "hello world\n1000:1001 \n0:0 \n[0][last]0:0 \n", 'what its commands said');
like($r->{err}, qr/^vfun init: script line 17: status 7: prog id 7\n$/, 'which line it was');

# What can go wrong on the way: one line, no guest, a status of its own.
spew(tmp('bad'), 'x' x 5000);
my $image = (guest_args('own'))[1];
for my $case (
	[8, qr/not an x86 kernel/, '--path', 'none', '--kernel', tmp('bad')],
	[8, qr/No such file/, '--path', 'none', '--kernel', tmp('nosuch')],
	[8, qr/No such file.*qemu-system-x86/, '--path', 'none', '--kernel', $image, '--qemu', tmp('nosuch')],
	[8, qr/no modules of kernel/, '--kernel', $image, '--modules', tmp()],
	[4, qr/no share of VM 'demo'/, '--run', tmp(), '--kernel', $image],
	[8, qr/nosuch: No such file/, '--path', 'none', '--kernel', $image, '--add', tmp('nosuch')],
	[2, qr/--cpus/, '--cpus', '0'],
	[2, qr/--memory/, '--memory', '1K'],
	[2, qr/--path/, '--path', 'net'],
	[2, qr/--vm/, '--vm', '../x'],
	[2, qr/--timeout/, '--timeout', '-1'],
	[2, qr/--env/, '--env', 'x'],
	[2, qr/--accel/, '--accel', 'x'],
	[2, qr/unrecognized/, '--nosuch'])
{
	my ($status, $text, @args) = @$case;
	$r = vfun('vm', @args, '--', 'vfun', '--version');
	is($r->{status}, $status, "vfun vm @args: status $status") or diag($r->{err});
	like($r->{err}, $text, 'says what');
	is(($r->{err} =~ tr/\n//), 1, 'in one line');
	is($r->{out}, '', 'and nothing on standard output');
}
is(vfun('vm')->{status}, 2, 'no command');

# A kernel that says nothing: this one's beginning alone.
open(my $f, '<:raw', $image) or die "$image: $!";
read($f, my $part, 20000);
spew(tmp('part'), $part);
$r = run([$VFUN, 'vm', '--path', 'none', '--timeout', 20, '--kernel', tmp('part'), '--', 'vfun', '--version']);
ok($r->{status} == 8 || $r->{status} == 5, "half a kernel: status $r->{status}");
like($r->{err}, qr/without a result|no result/, 'says that there is no result');
nothing_left('half a kernel');

$r = run([$VFUN, 'vm', '--path', 'none', '--timeout', 5, guest_args('own'), '--add', tmp('prog'), '--', '/prog', 'hang']);
is($r->{status}, 5, 'time-out');
like($r->{err}, qr/^vfun vm: no result within 5 seconds/, 'is said');
cmp_ok($r->{seconds}, '<', 15, 'and kept');
nothing_left('time-out');

# However it ends, QEMU ends with it.
for my $signal ('TERM', 'INT', 'KILL') {
	my $job = start([@vm, '--pidfile', tmp('pid'), '--', 'prog', 'hang']);
	ok(wait_until(20, sub { -s tmp('pid') }), 'a pid file');
	my ($qemu) = grep { "$_->[0]\n" eq slurp(tmp('pid')) } descendants();
	ok($qemu, 'with the pid of QEMU');
	sleep 1;
	kill $signal, $job->{pid};
	$r = finish($job, 10);
	cmp_ok($r->{status}, '>', 128, "SIG$signal: status $r->{status}");
	nothing_left("SIG$signal");
	ok($signal eq 'KILL' || !-e tmp('pid'), 'nor the pid file');
	unlink tmp('pid');
}

# A guest that is killed from outside.
my $job = start([@vm, '--pidfile', tmp('pid'), '--', 'prog', 'hang']);
wait_until(20, sub { -s tmp('pid') });
kill 'KILL', grep { /^\d+$/ } split /\n/, slurp(tmp('pid'));
$r = finish($job, 10);
is($r->{status}, 8, 'QEMU killed: status 8');
like($r->{err}, qr/without a result/, 'and a line');

# A /dev/kvm that is no KVM: the guest is emulated, unless KVM alone is wanted.
SKIP: {
	skip 'needs root to make such a /dev', 4 if $> != 0;
	my @broken = ('unshare', '-m', 'sh', '-c', 'mount -t tmpfs dev /dev && mknod -m 666 /dev/null c 1 3 && : >/dev/kvm && exec "$0" "$@"',
		'env', 'VFUN_ACCEL=', $VFUN, 'vm', '--path', 'none', '--timeout', 100, guest_args('own'));
	$r = run([@broken, '--', 'vfun', '--version']);
	is($r->{status}, 0, 'KVM that does not work: the guest runs all the same') or diag($r->{err});
	like($r->{err}, qr/^vfun vm: KVM does not bring the guest up: emulating/m, 'and a line says how');
	is($r->{out}, vfun('--version')->{out}, 'with the same result');
	$r = run([@broken, '--accel', 'kvm', '--', 'vfun', '--version']);
	is($r->{status}, 8, 'but not with --accel kvm');
}

SKIP: {
	skip 'no newer QEMU', 2 if !-x "$TREE/qemu";
	$r = run([$VFUN, 'vm', '--path', 'none', '--timeout', 100, guest_args('tree'), '--', 'vfun', '--version']);
	is($r->{status}, 0, 'the newer QEMU and its kernel, too') or diag($r->{err});
	diag(sprintf 'from start to end: %.1f s', $r->{seconds});
	is($r->{out}, vfun('--version')->{out}, 'with the same result');
}

done_testing();
