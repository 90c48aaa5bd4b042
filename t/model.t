#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# model.t - the ring's protocol, as a model, loses no wake-up and no slot, and knows no deadlock; an instance's end loses and
# replaces no answer; each broken variant does
use strict;
use warnings;
use lib 't/lib';
use Cwd qw(getcwd);
use Test::More;
use Vfun;

requires('spin');

# The checker's report on one variant of t/model/NAME.pml: all states are looked at, or the first fault ends it.
sub check {
	my ($name, @defines) = @_;
	my $model = getcwd() . "/t/model/$name.pml";
	my $dir = tmp(join('', $name, @defines) =~ s/\W//gr);
	mkdir $dir;
	my $r = run(['sh', '-c', "cd '$dir' && spin -a @defines '$model' && gcc -O2 -w -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m100000"], timeout => 300);
	is($r->{status}, 0, "the checker runs: $name @defines") or diag($r->{out}, $r->{err});
	return $r->{out};
}

for my $case (['ring', '-DCALLS=4'], ['ring', '-DCALLS=3', '-DWORKERS=2'], ['ring', '-DCALLS=4', '-DGUEST'],
	['ring', '-DCALLS=4', '-DBATCH'], ['ring', '-DCALLS=4', '-DBATCH', '-DGUEST'], ['end']) {
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
	my $out = check('ring', "-DBROKEN=$n", $n == 8 ? '-DWORKERS=2' : $n == 10 ? '-DGUEST' : $n == 11 ? '-DBATCH' : ());
	like($out, qr/errors: 1$/m, "found: $what");
	like($out, qr/^pan:1: $want/m, 'as what it is');
}

# The end of an instance
my @end = (
	['the memory is given back when the service has ended', 'assertion violated'],
	['the client reports the end without a last look', 'assertion violated'],
	['a release by anybody ends the lease', 'assertion violated'],
	['`gone` is stored before the service is dead', 'assertion violated'],
	['nobody rings at the end', 'invalid end state'],
	['the bell rings before `gone` is stored', 'invalid end state'],
	['the client looks for the end before it reads the bell', 'invalid end state'],
	['the client reads what it has closed', 'assertion violated'],
);
for my $n (1 .. @end) {
	my ($what, $want) = @{ $end[$n - 1] };
	my $out = check('end', "-DBROKEN=$n");
	like($out, qr/errors: 1$/m, "found: $what");
	like($out, qr/^pan:1: $want/m, 'as what it is');
}
done_testing();
