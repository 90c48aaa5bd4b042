#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# quota.t - instances, memory, connections and pending requests: who has his share of them gets a nack that says which,
# and nobody else does
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'root');

my $functions = "[function factorial]\n[function sha256]\narena = 1G\n";
my $d = Vfun->new(conf => "[vfund]\ninstances = 5\n$functions"
	. "[host]\nfunctions = factorial sha256\ninstances = 2\nmemory = 16M\ntotal-instances = 5\n"
	. "[vm demo]\nfunctions = factorial sha256\ninstances = 2\nmemory = 16M\n");
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};
spew(tmp('20M'), 'x' x (20 << 20));
spew(tmp('10M'), 'x' x (10 << 20));
chmod 0644, tmp('20M'), tmp('10M');
run(['cp', $VFUN, tmp('vfun')]);

sub hold {
	my ($uid, $function, @sizes) = @_;
	my $job = start([client(), 'hold', $function // 'factorial', 'host', @sizes], as => [$uid, $uid]);
	ok(wait_until(10, sub { slurp($job->{out}) =~ /^ok instance/ }), "uid $uid: an instance") or diag(slurp($job->{out}));
	return $job;
}

sub refused {
	my ($what, $text, $uid, @args) = @_;
	my $r = run([tmp('vfun'), 'call', @args], as => [$uid, $uid]);
	is($r->{status}, 3, "$what: refused") or diag($r->{out}, $r->{err});
	like($r->{err}, $text, 'with this very reason');
	return;
}

# Users of the host
my @held = map { hold(65534) } 1, 2;
refused('a third instance', qr/this client has as many instances as vfun\.conf allows.*no-resource/, 65534, 'factorial', 5);
push @held, hold(65533);
refused('more memory than a client may ever have', qr/gives this client 16777216 bytes of memory.*too-large/, 65533, 'sha256', tmp('20M'));
my $large = hold(65531, 'sha256', 1, 5 << 20);
refused('more memory than it has left', qr/this client's memory quota in vfun\.conf is used up.*no-resource/, 65531, 'sha256', tmp('10M'));
kill 'KILL', $large->{pid};
finish($large, 10);
push @held, map { hold(65532) } 1, 2;
refused('the sixth instance of all', qr/vfund has as many instances as vfun\.conf allows.*no-resource/, 65533, 'factorial', 5);
kill 'KILL', map { $_->{pid} } @held;
finish($_, 10) for @held;
ok(wait_until(10, sub { vfun('status')->{out} !~ /factorial/ }), 'all of them gone');
is(run([tmp('vfun'), 'call', 'factorial', 5], as => [65534, 65534])->{out}, "120\n", 'and there is room again');

my $r = run([client(), 'conns'], as => [65534, 65534]);
is($r->{out}, "ok 128 connections, then: no-resource: this user has as many connections to vfund as he may\n", 'connections');
ok(wait_until(5, sub { run([tmp('vfun'), 'call', 'factorial', 5], as => [65534, 65534])->{out} eq "120\n" }), 'whose end makes room');

# Eight users with as many as they may have don't shut everybody out.
my @many = map { start([client(), 'conns', 'hold'], as => [$_, $_]) } 65527 .. 65534;
ok(wait_until(60, sub { 8 == grep { slurp($_->{out}) =~ /^ok/ } @many }), 'eight users with many connections');
ok((grep { slurp($_->{out}) =~ /then: no-resource: vfund has as many connections as it can$/m } @many), 'the last places are not theirs')
	or diag(map { slurp($_->{out}) } @many);
is(run([tmp('vfun'), 'call', 'factorial', 5], as => [65526, 65526])->{out}, "120\n", 'a user who has none gets one');
is(run([client(), 'load', 1, 'host'])->{status}, 0, 'and so does root');
refused('who has many gets no more', qr/connections/, 65534, 'factorial', 5);
is(scalar(() = $d->log =~ /turned away/g) <= 60 ? 1 : 0, 1, 'the log is short');
kill 'KILL', map { $_->{pid} } @many;
finish($_, 10) for @many;

# A VM
spew(tmp('script'), <<'END');
client hold factorial copy &
as 1000:1000 client hold factorial copy &
sleep 2
!3 vfun call factorial 5
kill %1
!143 wait %1
sleep 1
!3 vfun call sha256 /20M
vfun call factorial 5
client pending 100
vfun call factorial 6
END
my $guest = $d->guest('own', undef, '--path', 'copy', '--script', tmp('script'), '--add', guest_client() . ':/bin/client', '--add', tmp('20M'));
ok(wait_until(100, sub { slurp($guest->{out}) =~ /^asking$/m }), 'a VM comes to its pending requests') or diag(slurp($guest->{err}));
# Those of its requests that the engine doesn't answer at once are pending; a user of the host waits for the engine, too.
my ($engine) = grep { $_->[1] eq 'vfun-engine' } descendants();
kill 'STOP', $engine->[0];
my $other = start([$VFUN, 'call', 'factorial', 7]);
ok(wait_until(20, sub { slurp("/proc/$engine->[0]/stat") =~ /^\d+ \(.*\) T /s }), 'the engine stands still');
sleep 3;
kill 'CONT', $engine->[0];
$r = finish($guest, 60);
is($r->{status}, 0, 'the VM') or diag($r->{out}, $r->{err}, $d->log);
like($r->{err}, qr/this client has as many instances as vfun\.conf allows/, 'its third instance, counted over all its users: refused');
like($r->{err}, qr/gives this client 16777216 bytes of memory/, 'its memory');
like($r->{out}, qr/^ok \d+ answers, (?!0 )\d+ refusals: no-resource: this VM has as many requests under way as it may$/m, 'its pending requests');
like($r->{out}, qr/^ok (?:6[4-9]|[7-9]\d|\d{3,}) answers/m, 'of which those that waited are answered');
like($r->{out}, qr/^720\n\z/m, 'and calls go on');
is(finish($other, 20)->{out}, "5040\n", 'a user of the host was not refused anything');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');

# Memory of all together
my $small = Vfun->new(conf => "[vfund]\nmemory = 1M\n$functions" . "[host]\nfunctions = factorial sha256\n");
ok($small->up, 'a vfund with little memory');
$ENV{VFUN_RUN_DIR} = $small->{run};
refused('more than there ever is for the host', qr/gives this client 786432 bytes of memory.*too-large/, 65534, 'sha256', tmp('20M'));
is(vfun('call', 'factorial', 5)->{out}, "120\n", 'what fits is done');
is_deeply([$small->down], [], 'it stops and leaves nothing');
done_testing();
