#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# build.t - one static-pie executable below 2 MiB, which dispatches its roles; sources without warnings on gcc and clang
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('clang');

is(run(['strip', '-o', tmp('vfun'), $VFUN])->{status}, 0, 'strip');
SKIP: {
	skip 'the address sanitizer makes another kind of executable', 7 if $SANITIZE;
	my $elf = run(['readelf', '-W', '-h', '-l', '-d', $VFUN])->{out};
	like($elf, qr/Type:\s+DYN/, 'position independent');
	unlike($elf, qr/INTERP/, 'no dynamic loader');
	unlike($elf, qr/NEEDED/, 'no shared library');
	like($elf, qr/GNU_RELRO/, 'relocations read-only');
	unlike($elf, qr/GNU_STACK.*RWE/, 'no executable stack');
	is(run(['prlimit', '--as=16000000', tmp('vfun'), '--version'])->{status}, 0, 'runs in 16 MB of address space');
	cmp_ok(-s tmp('vfun'), '<', 2 << 20, 'stripped: less than 2 MiB: ' . (-s tmp('vfun')));
}

my $r = run([tmp('vfun'), '--version'], env => { LD_LIBRARY_PATH => '/nonexistent' });
is($r->{status}, 0, '--version');
like($r->{out}, qr/^vfun \d+\.\d+\n$/, 'says its release');
is($r->{err}, '', 'and nothing else');

$r = vfun('--help');
is($r->{status}, 0, '--help');
like($r->{out}, qr/^usage: /, 'prints the usage');
for my $case ([qr/^usage: /], [qr/^vfun: 'nonsense' is not a role.*\n\z/, 'nonsense'], [qr/^vfun: '--nonsense' is not a role.*\n\z/, '--nonsense']) {
	my ($text, @args) = @$case;
	$r = vfun(@args);
	is($r->{status}, 2, "usage error: vfun @args");
	is($r->{out}, '', 'with nothing on standard output');
	like($r->{err}, $text, 'but why on standard error');
}

# Each role that people start: its usage where it is asked for, one line where something is wrong.
for my $role (vfun('--help')->{out} =~ /^  (\S+) /mg) {
	$r = vfun($role, '--help');
	is($r->{status}, 0, "vfun $role --help");
	like($r->{out}, qr/^usage: vfun $role /, 'prints its usage');
	is($r->{err}, '', 'and nothing else');
	$r = vfun($role, '--nonsense');
	is($r->{status}, 2, "usage error: vfun $role --nonsense");
	like($r->{err}, qr/^vfun $role: .*'--nonsense'.*\n\z/, 'said in one line');
	is($r->{out}, '', 'with nothing on standard output');
}
for my $case (['call'], ['release'], ['bench'], ['share'], ['vm'], ['list', 'x'], ['status', 'x'], ['daemon', 'x'], ['bench', 'idle', 'x'],
	['share', '--qemu-args', 'demo', 'x'], ['release', '-j', 1])
{
	$r = vfun(@$case);
	is($r->{status}, 2, "usage error: vfun @$case");
	like($r->{err}, qr/^vfun $case->[0]: .*\n\z/, 'said in one line');
}

# The name it is called by is a role.
for my $name ('vfun-init', 'init') {
	link(tmp('vfun'), tmp($name));
	$r = run([tmp($name)]);
	is($r->{status}, 2, "$name refuses to be anything but pid 1");
	like($r->{err}, qr/^vfun init: .*pid 1/, 'and says so');
}

# gcc has some warnings only when it optimizes, and the C library some only with _FORTIFY_SOURCE.
my @sources = glob '*.c proto/*.c backends/*.c backends/*/*.c roles/*.c roles/*/*.c';
my @flags = qw(-Iproto -std=gnu11 -O2 -D_GNU_SOURCE -D_FORTIFY_SOURCE=2 -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror);
for my $cc (['gcc', '-S', '-o', '/dev/null'], ['clang', '-fsyntax-only']) {
	my @bad = grep { $_->{status} } map { run([@$cc, @flags, $_], timeout => 60) } @sources;
	is(scalar @bad, 0, "$cc->[0] has no complaint");
	diag($_->{err}) for @bad;
}

# The header is an interface: alone, and for C++.
spew(tmp('h.c'), "#include \"proto/vfun.h\"\nint main(void) { return 0; }\n");
for my $lang ('c', 'c++') {
	$r = run(['clang', '-x', $lang, '-I.', qw(-Wall -Wextra -Werror -fsyntax-only), tmp('h.c')]);
	is($r->{status}, 0, "proto/vfun.h by itself as $lang") or diag($r->{err});
}

done_testing();
