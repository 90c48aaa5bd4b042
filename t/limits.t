#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# limits.t - closed or few descriptors, files that may not grow, a full disk: one true line, its status, nothing left
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Test::More;
use Vfun;

# A shell command, in which @VFUN@ is this executable: what it says comes through pipes, which no limit on files concerns.
sub sh {
	my ($command, %o) = @_;
	$command =~ s/\@VFUN\@/$VFUN/g;
	return run(['sh', '-c', "{ { ($command); echo \"status \$?\" >&3; } 2>&1 >&3 | cat >&2; } 3>&1 | cat"], %o);
}

sub refused {
	my ($r, $status, $text, $name) = @_;
	like($r->{out}, qr/^status $status$/m, "$name: status $status") or diag($r->{out}, $r->{err});
	like($r->{err}, $text, 'says why');
	return;
}

my $new = tmp('new');
my $daemon = "\@VFUN\@ daemon -c vfun.conf --run $new";

# vfund that can't start
for my $n (8, 10, 20, 33) {
	my $r = sh("ulimit -n $n; exec $daemon");
	refused($r, 8, qr/only $n files may be open, and with 1 VM it takes 34/, "vfund may open $n files");
	is($r->{err} =~ tr/\n//, 1, 'in one line');
	ok(!-e $new, 'and leaves nothing');
}
SKIP: {
	skip "the sanitizer's runtime needs more", 2 if $SANITIZE;
	my $job = start(['sh', '-c', "ulimit -n 34; exec $VFUN daemon -c vfun.conf --run $new"], log => tmp('log'));
	ok(wait_until(20, sub { slurp(tmp('log')) =~ /ready: / }), 'with 34 it starts') or diag(slurp(tmp('log')));
	kill 'TERM', $job->{pid};
	is(finish($job, 20)->{status}, 0, 'and stops');
}
refused(sh("ulimit -f 0; exec $daemon"), 8, qr/can't start: File too large$/, 'vfund may write no file');
ok(!-e $new, 'and leaves nothing');

# Clients
my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};
spew(tmp('data'), 'x' x 100_000);
refused(sh("ulimit -f 0; exec \@VFUN\@ call zstd -o " . tmp('z') . ' ' . tmp('data')), 8, qr/File too large$/, 'a result longer than a file may be');
SKIP: {
	skip "the sanitizer's runtime needs more", 9 if $SANITIZE;
	for my $n (3, 4, 5) {
		my $r = sh("ulimit -n $n; exec \@VFUN\@ call factorial 5");
		refused($r, 8, qr/^vfun call: factorial: .*Too many open files$/, "a client may open $n files");
		unlike($r->{err}, qr/no vfund|makes no sense/, 'and nobody else is blamed');
	}
}
my $r = sh('@VFUN@ status -j >&-');
refused($r, 8, qr/^vfun status: standard output: Bad file descriptor$/, 'standard output is closed');
refused(sh('@VFUN@ call sha256 - <&-'), 8, qr/^vfun call: -: Bad file descriptor$/, 'standard input is closed, and wanted');
like(sh('@VFUN@ call factorial 5 <&- 2>&-')->{out}, qr/^120\nstatus 0$/, 'standard input and error are closed');
is_deeply(decode_json(vfun('status', '-j')->{out})->{instances}, [], 'nothing is left in vfund');
is_deeply([$d->down], [], 'which stops and leaves nothing');

# vfund with nothing on 0 to 2: what it opens gets other numbers.
my $job = start(['sh', '-c', "exec $VFUN daemon -c vfun.conf --run $d->{run} <&- >&- 2>&-"]);
ok(wait_until(20, sub { -S "$d->{run}/control" && vfun('call', 'factorial', 5)->{status} == 0 }), 'vfund with descriptors 0 to 2 closed serves');
is_deeply([map { readlink("/proc/$job->{pid}/fd/$_") } 0 .. 2], [('/dev/null') x 3], 'and keeps them out of use');
kill 'TERM', $job->{pid};
is(finish($job, 20)->{status}, 0, 'and stops');

# A full disk below the run folder, which this process sees through vfund's own root.
SKIP: {
	skip 'needs root to mount one', 12 if $> != 0;
	my $disk = tmp('disk');
	mkdir $disk;
	my $on = sub {
		my ($size, $then) = @_;
		return start(['unshare', '-m', 'sh', '-c', "mount -t tmpfs -o size=64k,nr_inodes=$size none $disk && $then"], log => tmp('full.log'));
	};
	my $command = "exec $VFUN daemon -c vfun.conf --run $disk/r";
	is(finish($on->(3, "$command; ls -A $disk"), 20)->{status}, 8, 'vfund whose folder has no room for its sockets does not start');
	like(slurp(tmp('full.log')), qr/error: .*No space left on device/, 'and says why');

	unlink tmp('full.log');
	$job = $on->(64, $command);
	my $seen = "/proc/$job->{pid}/root$disk";
	ok(wait_until(20, sub { -S "$seen/r/control" && slurp(tmp('full.log')) =~ /ready: / }), 'vfund on a small disk') or diag(slurp(tmp('full.log')));
	my $full = run(['sh', '-c', "i=0; while : >'$seen/'\$i; do i=\$((i+1)); done"], timeout => 20);
	like($full->{err}, qr/No space left/, 'which is full');
	local $ENV{VFUN_RUN_DIR} = "$seen/r";
	is(vfun('call', 'factorial', 5)->{out}, "120\n", 'a call');
	like(slurp(tmp('full.log')), qr/record.*No space left on device/, 'costs a line of log');
	is_deeply(decode_json(vfun('status', '-j')->{out})->{instances}, [], 'and leaves nothing');
	unlink glob "$seen/[0-9]*";
	my $held = start([client(), 'hold', 'factorial', 'host']);
	ok(wait_until(10, sub { slurp($held->{out}) =~ /^ok/ }), 'once there is room again');
	is(scalar(() = glob "$seen/r/service/uid-0/factorial/*"), 1, 'there are records again');
	kill 'KILL', $held->{pid};
	finish($held, 5);
	kill 'TERM', $job->{pid};
	is(finish($job, 20)->{status}, 0, 'it stops');
}
is_deeply([still(qr/./)], [], 'no process is left');
done_testing();
