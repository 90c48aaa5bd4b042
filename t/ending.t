#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# ending.t - an instance ends in each window of its client's work: what was answered is read, and what is read is right
#
# t/lib/ending.c is the client; here its instance is released by an administrator, its service killed, its vfund stopped.
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Test::More;
use IO::Socket::INET;
use Vfun;

requires('root', 'qemu', 'kernel', 'tree');

my $port = do { my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1'); $s->sockport };
my $key = unpack 'H*', join '', map { chr int rand 256 } 1 .. 32;
spew(tmp('key'), "lab $key\n");
chmod 0600, tmp('key');
my $conf = slurp('vfun.conf') . "\n[vm bar]\nfunctions = factorial\nivshmem = 8M\n[net]\nlisten = 127.0.0.1:$port\n[net-client lab]\nkey-file = "
	. tmp('key') . "\nfunctions = factorial\n";

my $d;
sub up {
	$d = Vfun->new(conf => $conf);
	ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
	$ENV{VFUN_RUN_DIR} = $d->{run};
	return;
}
sub instances { return @{ decode_json(vfun('status', '--json')->{out} || '{"instances":[]}')->{instances} }; }
sub services { return map { $_->[0] } grep { $_->[1] eq 'vfun-service' } descendants($d->{job}{pid}); }

# The ways to end an instance.
my %end = (
	release => sub { my ($in) = @_; return vfun('release', $in->{instance})->{status} == 0; },
	kill => sub { my ($in) = @_; return kill 'KILL', $in->{pid}; },
	stop => sub { return !$d->down; },
);
sub gone { return wait_until(10, sub { !instances() && !services() }); }

# On the host and by the network
up();
for my $path ('host', 'net') {
	my %env = $path eq 'net' ? (VFUN_SERVER => "127.0.0.1:$port", VFUN_KEY_FILE => tmp('key')) : ();
	for my $window ('read', 'answered', 'batch') {
		for my $how ('release', 'kill', 'stop') {
			my $job = start([client('ending'), $window, $path], env => \%env);
			ok(wait_until(20, sub { slurp($job->{out}) =~ /^ready/m }), "$path, $window, $how: a client");
			my ($in) = instances();
			ok($end{$how}->($in), 'its instance is ended');
			my $r = finish($job, 30);
			is($r->{status}, 0, 'all that it read was right') or diag($r->{out}, $r->{err}, $d->log);
			like($r->{out}, $window eq 'batch' ? qr/^ok \d+ calls$/m : qr/^ok 16 calls$/m, 'and all that was answered was there');
			up() if $how eq 'stop';
			ok(gone(), 'nothing is left of it');
		}
	}
}

# What is held is shown, counts, and outlives engines; who releases what is another's takes nothing from it.
my $job = start([client('ending'), 'batch', 'host']);
ok(wait_until(20, sub { slurp($job->{out}) =~ /^ready/m }), 'a client');
my ($in) = instances();
kill 'STOP', $job->{pid};
is(vfun('release', $in->{instance})->{status}, 0, 'whose instance is released while it sleeps');
is(scalar(services()), 0, 'the service is gone');
($in) = instances();
is($in->{state}, 'ending', 'vfun status shows what is held as ending');
my ($engine) = grep { $_->[1] eq 'vfun-engine' } descendants($d->{job}{pid});
kill 'KILL', $engine->[0];
ok(wait_until(10, sub { vfun('status')->{status} == 0 }), 'a new engine');
is(scalar(instances()), 1, 'knows of it');
is(vfun('release', $in->{instance})->{status}, 0, 'released once more');
is(scalar(instances()), 1, 'it is still there');
kill 'CONT', $job->{pid};
my $r = finish($job, 30);
is($r->{status}, 0, 'its client reads on') or diag($r->{out});
ok(gone(), 'and lets go');

# In guests: the client makes one instance after another, and each is ended here.
sub guest {
	my ($name, $which, @args) = @_;
	my ($path) = $name =~ /(\w+)/;
	spew(tmp('script'), join '', map { "ending $_ $path\n" } ('read', 'answered', 'batch') x 2);
	my $vm = $d->guest($which, undef, @args, '--script', tmp('script'), '--add', guest_client('ending') . ':/bin/ending');
	my ($ends, %seen) = (0);
	wait_until(150, sub {
		for my $i (grep { $_->{state} eq 'active' && !$seen{ $_->{instance} }++ } instances()) {
			sleep 2;    # it gets ready
			my $how = $ends++ / 3 % 2 ? 'kill' : 'release';
			$i->{pid} = (services())[0];
			ok($end{$how}->($i), "$name: an instance is ended: $how");
		}
		return slurp($vm->{out}) =~ /(?:^ok [^\n]*\n.*?){6}/ms || !kill 0, $vm->{pid};
	});
	my $g = finish($vm, 60);
	is($g->{status}, 0, "$name: all that was read was right") or diag($g->{out}, $g->{err}, $d->log);
	is(scalar(() = $g->{out} =~ /^ok \d+ calls$/mg), 6, 'six times');
	ok(gone(), 'nothing is left');
	return;
}
guest('dax', 'tree', '--path', 'dax');
guest('copy', 'own', '--path', 'copy');
guest('ivshmem', 'own', '--vm', 'bar', '--path', 'ivshmem');

# Somebody ends whatever is there, at random, for a while.
for my $path ('host', 'net') {
	local %ENV = (%ENV, $path eq 'net' ? (VFUN_SERVER => "127.0.0.1:$port", VFUN_KEY_FILE => tmp('key')) : ());
	my $storm = start([client('ending'), 'storm', $path, 100_000]);
	my $ends = 0;
	wait_until(100, sub {
		my ($pid) = services();
		$ends += kill 'KILL', $pid if $pid;
		return slurp($storm->{out}) =~ /^ok/m || !kill 0, $storm->{pid};
	});
	my $s = finish($storm, 60);
	is($s->{status}, 0, "$path: 100000 calls while instances are ended: each is right, or an error") or diag($s->{out}, $s->{err});
	note($s->{out}, "$ends ends");
	cmp_ok($ends, '>', 3, 'they were');
}
ok(gone(), 'nothing is left');
is_deeply([$d->down], [], 'vfund stops');
done_testing();
