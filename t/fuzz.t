#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# fuzz.t - the fuzz targets of t/fuzz: each is built with address and undefined-behaviour sanitizers, goes through its
# corpus, and then looks for something new for a little while; `make fuzz` does that for longer
#
# The little while is a number of tries from a fixed seed, and addresses aren't random (the fuzzer's random choices depend on
# them) nor is the corpus read again after a while, so that the same tree gives the same result every time; what looks at clocks brings its own.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('clang');

my @targets = map { m{([^/]+)$} } grep { -d } glob 't/fuzz/corpus/*';
cmp_ok(scalar @targets, '>=', 9, "targets: @targets");

my $r = run(['make', '-j2', '-f', 't/fuzz/Makefile', "O=$BUILD/fuzz", 'CC=clang'],
	env => { MAKEFLAGS => '', CFLAGS => '' }, timeout => 1200);
is($r->{status}, 0, 'they build') or BAIL_OUT($r->{err});
unlike($r->{err}, qr/warning:/, 'without warnings') or diag($r->{err});

delete @ENV{qw(ASAN_OPTIONS UBSAN_OPTIONS LSAN_OPTIONS)};

sub fuzz {
	my ($target, @args) = @_;
	mkdir tmp("$target.found");
	return start(['setarch', '-R', "$BUILD/fuzz/$target", '-reload=0', '-timeout=10', '-rss_limit_mb=1024', '-print_final_stats=1',
		'-artifact_prefix=' . tmp("$target-"), @args]);
}

sub check {
	my ($target, $job, $what) = @_;
	my $done = finish($job, 120);
	my ($runs) = $done->{err} =~ /number_of_executed_units: (\d+)/;
	is($done->{status}, 0, "$target: $what: " . ($runs // 'no') . ' executions') or diag(substr($done->{err}, -6000));
	return;
}

# Two at a time.
while (my @two = splice @targets, 0, 2) {
	my @jobs = map { fuzz($_, '-runs=0', "t/fuzz/corpus/$_") } @two;
	check($two[$_], $jobs[$_], 'the corpus') for 0 .. $#two;
	@jobs = map { fuzz($_, '-seed=1', '-runs=' . ($_ eq 'fuse' ? 1000 : 3000), tmp("$_.found"), "t/fuzz/corpus/$_") } @two;
	check($two[$_], $jobs[$_], 'for a while') for 0 .. $#two;
}

# Twice the same
for my $target (qw(answers control)) {
	mkdir tmp("$target.same$_") for 1, 2;
	my @jobs = map { fuzz($target, '-seed=2', '-runs=2500', tmp("$target.same$_"), "t/fuzz/corpus/$target") } 1, 2;
	check($target, $_, 'once more') for @jobs;
	my @found = map { [map { m{([^/]+)$} } sort glob tmp("$target.same$_/*")] } 1, 2;
	cmp_ok(scalar @{ $found[0] }, '>', 10, "$target: new inputs are found");
	is_deeply($found[1], $found[0], 'and the same ones by both');
}

done_testing();
