#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# slots.t - many calls in flight; set, get, rst; insane slots, garbled messages, quotas: each its reason, nobody else disturbed
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

my $conf = slurp('vfun.conf') =~ s/^\[host\]\n.*?\n\n/[host]\nfunctions = factorial fibonacci sha256 zstd pingpong\ninstances = 5\nmemory = 2G\n\n/msr;
my $d = Vfun->new(conf => $conf);
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};

sub good {
	my ($what, $text, @args) = @_;
	my $r = run([client(), @args], timeout => 90);
	is($r->{status}, 0, $what) or diag($r->{out}, $r->{err}, $d->log);
	like($r->{out}, $text, 'as wanted');
	return $r;
}

good('one slot', qr/^ok 2000 calls/, 'inflight', 'host', 1, 2000);
good('64 slots in flight, answers taken out of order', qr/^ok 20032 calls, 64/, 'inflight', 'host', 64, 20000);
good('256 slots in flight', qr/^ok 20224 calls, 256/, 'inflight', 'auto', 256, 20000);
good('set, get, rst, echo', qr/^ok/, 'setget', 'host');

good('a client that sleeps is woken', qr/^ok rung/, 'park', 'host');
good('and once only for a batch', qr/^ok 10 batches, 1 workers, rung (?:[1-9]|1\d|20) times/, 'gather', 'host', 10);
good('several releases of one instance, whose memory is given back', qr/^ok/, 'release');

# A second client works on while the first misbehaves.
my $witness = start([client(), 'load', 8, 'host']);
good('insane slots: each its reason, then cut off', qr/^ok path host: cut-off/, 'insane', 'host');
good('garbled control messages', qr/^ok/, 'control');
my $r = run([client('hostile'), 'rewrite', 100_000, 'host'], timeout => 120);
like($r->{out}, qr/^ok \d+ calls/, 'a client that rewrites its slots and arena while they are read') or diag($r->{out}, $d->log);
$r = finish($witness, 60);
is($r->{status}, 0, 'another client saw nothing of it') or diag($r->{out});

like($d->log, qr/too many insane slots in a row, the client is cut off/, 'the cut-off is in the log');
unlike($d->log, qr/signal/, 'no service died of anything');

good('more grants and instances than a client may have', qr/^ok 5 instances, then: .*as vfun.conf allows/, 'grants');
wait_until(5, sub { vfun('status')->{out} !~ /factorial|sha256/ });
unlike(vfun('status')->{out}, qr/factorial|sha256/, 'no instance is left');
is_deeply([still(qr/^vfun-service$/)], [], 'nor a service');

# Quotas of memory
my $small = Vfun->new(conf => "[vfund]\nmemory = 32M\n[function sha256]\narena = 1G\n[function factorial]\nslots = 8\n[host]\n"
	. "functions = sha256 factorial\nmemory = 16M\n");
ok($small->up, 'a vfund with little memory');
spew(tmp('20M'), 'x' x (20 << 20));
$r = vfun('call', '--run', $small->{run}, 'sha256', tmp('20M'));
is($r->{status}, 3, "beyond the client's memory quota: refused");
like($r->{err}, qr/16777216 bytes of memory.*too-large/, 'says that it never will be granted');
spew(tmp('10M'), 'x' x (7 << 20));
is(vfun('call', '--run', $small->{run}, 'sha256', tmp('10M'))->{status}, 0, 'what fits is done');
$r = run([client(), 'inflight', 'host', 16, 100], env => { VFUN_RUN_DIR => $small->{run} });
like($r->{out}, qr/at most 8 slots/, 'more slots than vfun.conf allows: refused');
is(vfun('call', '--run', $small->{run}, 'zstd', 5)->{status}, 3, 'a function that is not offered: refused');
is_deeply([$small->down], [], 'it stops and leaves nothing');

is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
