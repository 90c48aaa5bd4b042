#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# killed.t - whoever is killed, in the middle of a call or out of it: nothing is left behind, nobody else is disturbed
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'tree');

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};

sub instances { return @{ decode_json(vfun('status', '--json')->{out})->{instances} }; }
sub services { return grep { $_->[1] eq 'vfun-service' } descendants(); }

sub no_trace {
	my ($what) = @_;
	ok(wait_until(10, sub { !instances() && !services() }), "$what: vfund shows no trace");
	is_deeply([glob "$d->{run}/service/*"], [], 'no record is left');
	return;
}

# A program on the host
my $job = start([client(), 'busy', 'host']);
ok(wait_until(10, sub { slurp($job->{out}) =~ /^ok/ }), 'a client on the host in the middle of a call');
is(scalar(() = instances()), 1, 'vfund shows it');
kill 'KILL', $job->{pid};
finish($job, 5);
no_trace('the client on the host killed');

# The engine: services and connections go on.
$job = start([client(), 'load', 6, 'host']);
for my $n (1 .. 5) {
	sleep 1;
	my ($engine) = grep { $_->[1] eq 'vfun-engine' } descendants();
	kill 'KILL', $engine->[0];
}
my $r = finish($job, 60);
is($r->{status}, 0, 'the engine killed five times under load: no client sees an error') or diag($r->{out}, $d->log);
my $held = start([client(), 'hold', 'factorial', 'host']);
ok(wait_until(10, sub { slurp($held->{out}) =~ /^ok/ }), 'an instance is held');
my ($before) = services();
my ($engine) = grep { $_->[1] eq 'vfun-engine' } descendants();
kill 'KILL', $engine->[0];
ok(wait_until(5, sub { vfun('status')->{status} == 0 }), 'a new engine answers');
is(scalar(() = instances()), 1, 'it knows the instance');
is_deeply([services()], [$before], 'whose service is the same process');
kill 'KILL', $held->{pid};
finish($held, 5);
no_trace('its client killed then');

# Guests, by both paths
for my $case (['own', 'copy'], ['tree', 'dax']) {
	my ($which, $path) = @$case;

	# A process in a guest
	spew(tmp('script'), <<"END");
client busy $path &
sleep 2
vfun status
kill %1 KILL
!137 wait %1
sleep 1
vfun status
vfun call --path $path factorial 5
END
	my $guest = $d->guest($which, undef, '--path', $path, '--script', tmp('script'), '--add', guest_client() . ':/bin/client');
	$r = finish($guest, 120);
	is($r->{status}, 0, "$path: a process in a guest killed in the middle of a call") or diag($r->{out}, $r->{err}, $d->log);
	like($r->{out}, qr/^ok instance.*1 instance;.*factorial.*active.*0 instances;.*^120$/ms, 'its instance goes, the next call is served')
		or diag($d->log);
	no_trace('the guest process killed');

	# The whole guest
	$guest = $d->guest($which, ['client', 'busy', $path], '--path', $path, '--add', guest_client() . ':/bin/client', '--pidfile', tmp('pid'));
	ok(wait_until(60, sub { my @i = instances(); @i && $i[0]{state} eq 'active' }), "$path: a guest in the middle of a call");
	sleep 1;
	kill 'KILL', grep { /^\d+$/ } split /\n/, slurp(tmp('pid'));
	is(finish($guest, 20)->{status}, 8, 'its QEMU is killed');
	no_trace('the guest killed');
	ok(!-e "$d->{run}/vmcli/demo/device", 'nor of the VM');
	is_deeply([still(qr/^vfun-share$/)], [], 'nor a share');
}

is_deeply([$d->down], [], 'vfund stops and leaves nothing');

# vfund itself, by SIGKILL: nobody survives it, and the next one clears up.
ok($d->up, 'vfund starts again');
$job = start([client(), 'busy', 'host']);
wait_until(10, sub { slurp($job->{out}) =~ /^ok/ });
my %its = map { $_->[0] => 1 } descendants($d->{job}{pid});
kill 'KILL', $d->{job}{pid};
finish($d->{job}, 5);
ok(wait_until(5, sub { !grep { $its{ $_->[0] } } descendants() }), 'vfund killed: its processes go with it');
kill 'KILL', $job->{pid};
finish($job, 5);
ok(-e "$d->{run}/control", 'a stale socket is left');
is(vfun('call', 'factorial', 5)->{status}, 4, 'and recognized as nobody');
ok(unlink("$d->{run}/control") && $d->up, 'the next vfund starts in the same folder');
is(vfun('call', 'factorial', 5)->{out}, "120\n", 'and works');
is_deeply([$d->down], [], 'stops and leaves nothing');
done_testing();
