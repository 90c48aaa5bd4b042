#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# model.t - the ring's protocol, as a model, loses no wake-up and no slot, and knows no deadlock; each broken variant does
use strict;
use warnings;
use lib 't/lib';
use Cwd qw(getcwd);
use Test::More;
use Vfun;

requires('spin');

my $model = getcwd() . '/t/model/ring.pml';

# The checker's report on one variant: all states are looked at, or the first fault ends it.
sub check {
	my (@defines) = @_;
	my $dir = tmp(join('', 'm', @defines) =~ s/\W//gr);
	mkdir $dir;
	my $r = run(['sh', '-c', "cd '$dir' && spin -a @defines '$model' && gcc -O2 -w -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m100000"], timeout => 300);
	is($r->{status}, 0, "the checker runs: @defines") or diag($r->{out}, $r->{err});
	return $r->{out};
}

for my $case (['-DCALLS=4'], ['-DCALLS=3', '-DWORKERS=2'], ['-DCALLS=4', '-DGUEST'],
	['-DCALLS=4', '-DBATCH'], ['-DCALLS=4', '-DBATCH', '-DGUEST']) {
	my $out = check(@$case);
	like($out, qr/errors: 0$/m, "@$case: no fault") or diag($out);
	unlike($out, qr/search depth too small|max search depth|out of memory/i, 'in all of its states');
	my ($states) = $out =~ /^\s*(\d+) states, stored/m;
	cmp_ok($states, '>', 10_000, "$states states");
}

my %fault = (
	1 => ['the client reads `parked` before its request is visible', 'invalid end state'],
	2 => ['the service reads `parked` before its answer is visible', 'invalid end state'],
	3 => ['the client looks again before its `parked` is visible', 'invalid end state'],
	4 => ['the service sleeps without looking again', 'invalid end state'],
	5 => ['the client reads the bell too late', 'invalid end state'],
	6 => ['the client uses a slot again that is still in use', '(?:invalid end state|assertion violated)'],
	7 => ['the service publishes an answer before its result', 'assertion violated'],
	10 => ['the share forgets a wake while no read of the bell file is pending', 'invalid end state'],
	9 => ['the service sleeps and still owes the client a wake-up', 'invalid end state'],
	8 => ['a ring wakes one of two workers', 'invalid end state'],
	11 => ['the service does not ring for the very answer that is awaited', 'invalid end state'],
);
for my $n (sort { $a <=> $b } keys %fault) {
	my ($what, $want) = @{ $fault{$n} };
	my $out = check("-DBROKEN=$n", $n == 8 ? '-DWORKERS=2' : $n == 10 ? '-DGUEST' : $n == 11 ? '-DBATCH' : ());
	like($out, qr/errors: 1$/m, "found: $what");
	like($out, qr/^pan:1: $want/m, 'as what it is');
}
done_testing();
