#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# features.t - what version 1.4 added: order with workers, cancel, limits of calls, poll(2), reasons for what used to stall
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

my $port = 20000 + $$ % 20000;
my $key = spew(tmp('lab.key'), 'lab ' . '5a' x 32 . "\n");
chmod 0600, $key;
my $d = Vfun->new(conf => "[function factorial]\nslots = 64\nworkers = 4\narena = 1M\n[host]\nfunctions = factorial\nmemory = 16M\ninstances = 7\n"
	. "[net]\nlisten = 127.0.0.1:$port\n[net-client lab]\nkey-file = $key\nfunctions = factorial\n");
my $one = Vfun->new(conf => "[function factorial]\nslots = 64\narena = 1M\n[host]\nfunctions = factorial\n");
my $own = Vfun->new(conf => "[function factorial]\nbackend = program\nprogram = " . program('stops') . "\nslots = 64\nworkers = 4\narena = 1M\n[host]\nfunctions = factorial\n");
ok($_->up, 'vfund starts') or BAIL_OUT($_->log) for $d, $one, $own;

my %net = (VFUN_SERVER => "127.0.0.1:$port", VFUN_KEY_FILE => $key, VFUN_RUN_DIR => tmp('none'));

sub good {
	my ($what, $text, $env, @args) = @_;
	my $r = run([client('features'), @args], timeout => 120, env => $env);
	is($r->{status}, 0, $what) or diag($r->{out}, $r->{err}, $d->log);
	like($r->{out}, $text, 'as wanted');
	return $r;
}

for my $case (['four workers', 4, 'host', { VFUN_RUN_DIR => $d->{run} }], ['one worker', 1, 'host', { VFUN_RUN_DIR => $one->{run} }], ['over TCP', 4, 'net', \%net]) {
	my ($who, $workers, $path, $env) = @$case;
	my $text = qr/^ok path $path, $workers workers$/;
	good("$who: each GET has the arguments of the SET before it", $text, $env, 'order', $path);
	good("$who: cancelled while it is computed, and before", $text, $env, 'cancel', $path);
	good("$who: a limit of its own", $text, $env, 'limit', $path);
	good("$who: calls that timed out", $text, $env, 'forget', $path);
}
good("a program of one's own: $_", qr/^ok path host, 4 workers$/, { VFUN_RUN_DIR => $own->{run} }, $_, 'host') for qw(order cancel limit ordered);
$ENV{VFUN_RUN_DIR} = $d->{run};
good('an ordered call begins after all earlier ones', qr/^ok/, {}, 'ordered', 'host');
good('answers by poll(2)', qr/^ok/, {}, 'poll');
good('a position that is skipped: the instance ends, and says why', qr/^ok a request came out of turn/, {}, 'skip');
good('a slot that is used too early', qr/^ok/, {}, 'early');
like($d->log, qr/lost: the client skipped a position, or used a slot again too early/, 'the log says so');
good('the grant tells the limits', qr/^ok slots 64, arena 1048576, call 0 ms, memory 16777216, instances 7 of 7, features 7, grant [1-9]\d* s$/, {}, 'limits', 'host');
good('of a net client too', qr/^ok slots 64, .*features 7,/, \%net, 'limits', 'net');

# Somebody else ends the instance: poll(2) tells of it.
my $job = start([client('features'), 'end']);
ok(wait_until(30, sub { slurp($job->{out}) =~ /^ready/ }), 'an instance with a call under way') or diag(slurp($job->{out}));
my ($number) = vfun('status')->{out} =~ /^\s*(\d+)\s.*factorial/m;
is(vfun('release', $number)->{status}, 0, 'released by another');
is(finish($job, 40)->{status}, 0, 'poll(2) wakes its client, which is told') or diag(slurp($job->{out}));

is_deeply([$_->down], [], 'vfund stops and leaves nothing') for $d, $one, $own;
done_testing();
