#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# fuzz.t - the fuzz targets of t/fuzz: each is built with address and undefined-behaviour sanitizers, goes through its
# corpus, and then looks for something new for a little while; `make fuzz` does that for longer
#
# The little while is a number of tries from a fixed seed, so that the same tree gives the same result every time.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('clang');

my @targets = map { m{([^/]+)$} } grep { -d } glob 't/fuzz/corpus/*';
cmp_ok(scalar @targets, '>=', 7, "targets: @targets");

my $r = run(['make', '-j2', '-f', 't/fuzz/Makefile', "O=$BUILD/fuzz", 'CC=clang'],
	env => { MAKEFLAGS => '', CFLAGS => '' }, timeout => 300);
is($r->{status}, 0, 'they build') or BAIL_OUT($r->{err});
unlike($r->{err}, qr/warning:/, 'without warnings') or diag($r->{err});

delete @ENV{qw(ASAN_OPTIONS UBSAN_OPTIONS LSAN_OPTIONS)};

sub fuzz {
	my ($target, @args) = @_;
	mkdir tmp("$target.found");
	return start(["$BUILD/fuzz/$target", '-timeout=10', '-rss_limit_mb=1024', '-print_final_stats=1',
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

done_testing();
