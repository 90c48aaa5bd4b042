#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# shortage.t - where descriptors or processes are used up, whoever is killed is replaced all the same, or as soon as there
# are some again: vfund doesn't end, no VM loses its device
use strict;
use warnings;
use lib 't/lib';
use IO::Socket::UNIX;
use Test::More;
use Vfun;

requires('root');
if ($SANITIZE) {
	plan skip_all => "the sanitizer's runtime needs more";
}

my $conf = slurp('vfun.conf') =~ s/^\[host\]\n/[host]\ninstances = 200\n/mr;
my @user = (54321, 54321);

sub process {
	my ($name, $not) = @_;
	my ($p) = grep { $_->[1] eq $name && $_->[0] != ($not // 0) } descendants();
	return $p ? $p->[0] : 0;
}

# Kill it, and see who comes.
sub replaced {
	my ($name, $what) = @_;
	my $old = process($name);
	ok($old, "$what is there") or return;
	kill 'KILL', $old;
	ok(wait_until(20, sub { process($name, $old) }), 'killed it has a successor');
	return;
}

sub front_end {
	my ($d) = @_;
	return wait_until(10, sub { IO::Socket::UNIX->new(Peer => "$d->{run}/vmcli/demo/share.sock") });
}

sub answers { return wait_until(20, sub { run([$VFUN, 'list'], timeout => 5)->{status} == 0 }); }

# Descriptors: as many instances as there is room for.
for my $n (52, 64, 80) {
	my $d = Vfun->new(conf => $conf);
	$ENV{VFUN_RUN_DIR} = $d->{run};
	my $job = start(['sh', '-c', "ulimit -n $n; exec $VFUN daemon -c $d->{conf} --run $d->{run}"], log => $d->{log});
	ok(wait_until(20, sub { -S "$d->{run}/control" }) && answers(), "vfund may open $n files");
	my $qemu = front_end($d);
	ok(wait_until(10, sub { process('vfun-share') }), 'a front-end connects');
	my @held;
	for (1 .. 30) {
		push @held, start([client(), 'hold', 'factorial', 'host']);
		wait_until(10, sub { length(slurp($held[-1]{out}) . slurp($held[-1]{err})) });
		last if slurp($held[-1]{out}) !~ /^ok/;
	}
	unlike(slurp($held[-1]{out}), qr/^ok/, @held - 1 . ' instances use up the rest');
	for (1 .. 3) {
		replaced('vfun-engine', 'the engine');
		ok(answers(), 'and answers') or diag($d->log);
		replaced('vfun-share', 'the share');
	}
	unlike($d->log, qr/given up/, 'nobody is given up') or diag($d->log);
	kill 'KILL', map { $_->{pid} } @held;
	finish($_, 10) for @held;
	ok(wait_until(10, sub { vfun('call', 'factorial', 5)->{out} eq "120\n" }), 'with room again it goes on') or diag($d->log);
	close $qemu;
	kill 'TERM', $job->{pid};
	is(finish($job, 20)->{status}, 0, 'it stops');
}

# Processes: there are none for a while.
my $d = Vfun->new(conf => $conf, as => \@user);
ok($d->up, 'vfund of a user') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};
my $qemu = front_end($d);
ok(wait_until(10, sub { process('vfun-share') }), 'a front-end connects');
my ($before) = run(['prlimit', '--pid', $d->{job}{pid}, '--nproc', '-o', 'SOFT', '--noheadings', '--raw'], as => \@user)->{out} =~ /(\w+)/;
is(run(['prlimit', '--pid', $d->{job}{pid}, '--nproc=1:'], as => \@user)->{status}, 0, 'which may start no further process');
kill 'KILL', process('vfun-engine'), process('vfun-share');
ok(wait_until(10, sub { $d->log =~ /vfun-engine engine can't be replaced yet: Resource/ && $d->log =~ /vfun-share demo can't be replaced yet: Resource/ }), 'engine and share are killed, and have no successor')
	or diag($d->log);
sleep 1;
run(['prlimit', '--pid', $d->{job}{pid}, "--nproc=$before:"], as => \@user);
ok(answers(), 'there are processes again, and an engine');
ok(wait_until(20, sub { process('vfun-share') }), 'and a share');
is(run([$VFUN, 'call', 'factorial', 5], as => \@user)->{out}, "120\n", 'functions are computed');
close $qemu;
is_deeply([$d->down], [], 'it stops and leaves nothing');
done_testing();
