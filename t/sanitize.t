#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# sanitize.t - what a sanitizer finds in a confined process is said, ends the process, and fails the test that ran it
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

my $build = sanitized();
my @objects = grep { !m{/obj/(?:vfun|roles/service/service)\.o$} } split /\n/, run(['find', "$build/obj", '-name', '*.o'])->{out};
my $r = run(['gcc', qw(-g -O1 -std=gnu11 -D_GNU_SOURCE), '-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-o', tmp('fault'),
	't/lib/fault.c', @objects, qw(-linih -lseccomp -lcap-ng -lnettle -lzstd -lgmp)]);
is($r->{status}, 0, 'a confined service that does wrong') or diag($r->{err});
my $log = tmp('log');
for my $case (
	['none', 0, qr/^$/],
	['heap', 99, qr/AddressSanitizer: heap-buffer-overflow.*fault\+0x/s],
	['free', 99, qr/AddressSanitizer: heap-use-after-free.*fault\+0x/s],
	['ub', 99, qr/runtime error: signed integer overflow/],
	['segv', 99, qr/AddressSanitizer: SEGV/])
{
	my ($what, $status, $said) = @$case;
	spew($log, '');
	is(finish(start([tmp('fault'), $what], log => $log), 20)->{status}, $status, "$what: status $status");
	like(slurp($log), $said, $status ? 'and the report' : 'and nothing said');
}

for my $case (
	['nothing', 0],
	['==1==ERROR: AddressSanitizer: heap-use-after-free', 99],
	['x.c:1:1: runtime error: signed integer overflow', 99],
	['warning: vfun-share demo (pid 5) died: signal 31; a successor takes over', 99])
{
	my ($line, $status) = @$case;
	my $test = 'use Test::More; use Vfun; run(["echo", $ARGV[0]]); pass(); done_testing();';
	is(finish(start([$^X, '-It/lib', '-e', $test, $line], log => $log), 20)->{status}, $status, "a test in which a program says: $line");
}
forget($log);
done_testing();
