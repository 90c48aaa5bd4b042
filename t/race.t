#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# race.t - client and service, without a lock between them: no data race (thread sanitizer), and no wake-up gets lost, also
# where stores become visible late; each of the orders and barriers in the code is needed, and missed where it is taken away
#
# See t/lib/race.c for what is tried, and what isn't.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

my @cc = (qw(gcc -g -std=gnu11 -D_GNU_SOURCE -Iproto -pthread), '-Wl,--wrap=syscall');
my %build = (
	'thread sanitizer' => [qw(-O1 -fsanitize=thread -Wno-tsan)],
	'late stores' => [qw(-O2 -DTSO_REPLACE -include t/lib/tso.h)],
);
my $builds = 0;

# The program with this file of proto/ in place of its own.
sub build {
	my ($how, $text, $name) = @_;
	my $path = tmp('race' . ++$builds);
	my @proto = map { $name && $_ eq "proto/$name" ? spew("$path.$name", $text) : $_ } glob 'proto/*.c';
	my $r = run([@cc, @{ $build{$how} }, '-o', $path, 't/lib/race.c', @proto, '-lnettle'], timeout => 60);
	BAIL_OUT("t/lib/race.c: $r->{err}") if $r->{status};
	return $path;
}

# Where addresses are too random for the sanitizer, without.
sub race {
	my ($path, $calls) = @_;
	my $r = run([$path, $calls], timeout => 120);
	return $r->{err} =~ /unexpected memory mapping/ ? run(['setarch', '-R', $path, $calls], timeout => 120) : $r;
}

for my $how (sort keys %build) {
	my $r = race(build($how), 10_000);
	is($r->{status}, 0, "$how: no complaint") or diag(substr($r->{out} . $r->{err}, 0, 4000));
	like($r->{out}, qr/^ok \d+ calls, clients slept [1-9]\d* times, services [1-9]\d* times$/, $r->{out} =~ s/\n//r);
}

# Orders and barriers taken away, one by one. In a file of its own: what such a program says is no finding.
my $broken = tmp('broken');
for my $case (
	['thread sanitizer', 'serve.c', 'an answer', 'ans->reason, len), __ATOMIC_RELEASE', '__ATOMIC_RELEASE', '__ATOMIC_RELAXED'],
	['thread sanitizer', 'channel.c', 'a request', 'store_n((uint64_t *)(void *)line, head, __ATOMIC_RELEASE', '__ATOMIC_RELEASE', '__ATOMIC_RELAXED'],
	['thread sanitizer', 'serve.c', 'looking for a request', undef, '__ATOMIC_ACQUIRE', '__ATOMIC_RELAXED'],
	['thread sanitizer', 'channel.c', 'looking for an answer', undef, '__ATOMIC_ACQUIRE', '__ATOMIC_RELAXED'],
	['thread sanitizer', 'serve.c', 'among workers', 'while (__atomic_exchange_n(&s->lock, 1, __ATOMIC_ACQUIRE))', 'while \(', 'while (0 && '],
	['late stores', 'serve.c', 'before waking the client', "thread_fence(__ATOMIC_SEQ_CST);\n\tif (!__atomic_load_n(&st->out->parked", 'thread', 'signal'],
	['late stores', 'serve.c', 'before the service sleeps', "if (!published(st))\n\t\tsilent =", '!published\(st\)', '1'],
	['late stores', 'channel.c', 'before waking the service', "thread_fence(__ATOMIC_SEQ_CST);\n\t/* With copy, asking", 'thread', 'signal'],
	['late stores', 'channel.c', 'before the client sleeps', "thread_fence(__ATOMIC_SEQ_CST);\n\tif (!r)\n\t\tr = look", 'thread', 'signal'])
{
	my ($how, $file, $what, $at, $from, $to) = @$case;
	my $text = slurp("proto/$file");
	my $instead = sub { my ($part) = @_; $part =~ s/($from)/$to \/\/ ($1 eq 'thread' ? 'signal' : '__ATOMIC_RELAXED')/ger };
	my $n = defined $at ? $text =~ s/(\Q$at\E)/$instead->($1)/e : ($text = $instead->($text)) ne slurp("proto/$file");
	ok($n, "proto/$file has its barrier, $what");
	# A program that hangs has failed as well. Which store comes late is chance: what didn't happen in one run does in another.
	my ($path, $status) = (build($how, $text, $file), 0);
	for (1 .. 5) {
		$status ||= finish(start(['timeout', 15, $path, 100_000], log => $broken, env => { TSAN_OPTIONS => 'halt_on_error=1' }), 120)->{status};
	}
	isnt($status, 0, "$how: without it, the test fails");
}
like(slurp($broken), qr/WARNING: ThreadSanitizer: data race/, 'the data races are reported');
like(slurp($broken), qr/both sides sleep, a wake-up was lost/, 'and lost wake-ups');
forget($broken);
done_testing();
