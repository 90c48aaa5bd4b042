#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# users.t - users of the host: whose further uids are theirs, what they have together, who may connect at all, and whose
# processes could end vfund's
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('root');

my $base = 2100000000 + $$ % 1000 * 65536;    # not that of another test
my $conf = slurp('vfun.conf') =~ s/^;uid-base = .*/uid-base = $base/mr;
run(['cp', $VFUN, tmp('vfun')]);

# An /etc of vfund's own, in which tester has the uid 3000, and all of 300000 to 365535.
sub etc {
	my (%file) = @_;
	my $etc = tmp('etc');
	mkdir $etc;
	unlink glob "$etc/*";
	spew("$etc/passwd", "root:x:0:0::/:\nnobody:x:65534:65534::/:\ntester:x:3000:3000::/:\nvfun:x:777:778::/:\n" . ($file{passwd} // ''));
	spew("$etc/group", "root:x:0:\nfew:x:5000:somebody\n");
	spew("$etc/subuid", $file{subuid} // "tester:300000:65536\n3001:400000:10\nlost:500000:65536\n") if !$file{none};
	return ('unshare', '-m', 'sh', '-c', "mount --bind '$etc' /etc && exec \"\$0\" \"\$@\"", $VFUN);
}

sub fault {
	my ($what, $conf_text, $text, %etc) = @_;
	my $r = run([etc(%etc), 'daemon', '-n', '-c', spew(tmp('f.conf'), $conf_text)]);
	is($r->{status}, 2, "$what: refused");
	like($r->{err}, $text, 'in a sentence');
	return;
}

# Whom the engine can't be
my $user = sub { my ($key, $value) = @_; return $conf =~ s/^\[vfund\]\n/[vfund]\n$key = $value\n/mr; };
fault('user nobody', $user->('user', 'nobody'), qr/f\.conf:5: user: 'nobody' is the user of others as well, any of whom could end vfund/);
fault('a user with the uid of nobody', $user->('user', 'other'), qr/user: 'other' is the user of others/, passwd => "other:x:65534:1::/:\n");
fault('user root', $user->('user', 'root'), qr/user: 'root' is root/);
fault('a user that there is not', $user->('user', 'nosuch'), qr/user: 'nosuch' is not in \/etc\/passwd/);
fault('a group that there is not', $user->('group', 'nosuch'), qr/group: 'nosuch' is not in \/etc\/group/);
fault("a user with one of vfund's uids", $conf, qr/uid-base: thief in \/etc\/passwd has uids between $base and @{[$base + 65535]}/, passwd => "thief:x:@{[$base + 65]}:1::/:\n");
fault("a user with vfund's uids as further ones", $conf, qr/uid-base: thief in \/etc\/subuid has uids/, subuid => "thief:@{[$base - 10]}:20\n");
is(run([etc(none => 1), 'daemon', '-n', '-c', 'vfun.conf'])->{status}, 0, 'no /etc/subuid');
is(run([etc(subuid => "a:b:c\n:::\n\n" . 'x' x 10000 . "\nlast:7\n"), 'daemon', '-n', '-c', 'vfun.conf'])->{status}, 0, 'nonsense in /etc/subuid');

# A vfund there
sub daemon {
	my ($run, $text) = @_;
	my $job = start([etc(), 'daemon', '-c', spew("$run.conf", $text), '--run', $run], log => "$run.log");
	ok(wait_until(20, sub { slurp("$run.log") =~ /ready: / }), 'vfund starts') or BAIL_OUT(slurp("$run.log"));
	$ENV{VFUN_RUN_DIR} = $run;
	return $job;
}

sub ends {
	my ($job) = @_;
	kill 'TERM', $job->{pid};
	is(finish($job, 20)->{status}, 0, 'it stops');
	is_deeply([still(qr/vfun/)], [], 'and leaves nothing');
	return;
}

sub hold {
	my ($uid) = @_;
	my $job = start([client(), 'hold', 'factorial', 'host'], as => [$uid, $uid]);
	wait_until(10, sub { slurp($job->{out}) =~ /\n/ });
	return $job;
}

sub call { my ($uid, $gid) = @_; return run([tmp('vfun'), 'call', 'factorial', 5], as => [$uid, $gid // $uid]); }

my $job = daemon(tmp('d'), $conf =~ s/^(\[host\]\n.*\n)instances = 64/$1instances = 2/mr =~ s/^instances = 256/instances = 8/mr);

# Instances: two for tester and whoever he makes himself
my @held = map { hold($_) } 3000, 300000;
is(scalar(grep { slurp($_->{out}) =~ /^ok/ } @held), 2, 'a user, and one of his further uids: an instance each');
like(call($_)->{err}, qr/this client has as many instances as vfun\.conf allows/, "uid $_ has no more") for 3000, 300000, 300001, 365535;
is(call($_)->{out}, "120\n", "uid $_ is somebody else") for 299999, 365536, 3001;
push @held, map { hold($_) } 400000, 400009;
like(call(3001)->{err}, qr/this client has as many instances as vfun\.conf allows/, 'a user by his number');
push @held, map { hold($_) } 500000, 500001;
like(call(500002)->{err}, qr/this client has as many instances as vfun\.conf allows/, 'a user who is gone: his uids are one');

# All users together
is(scalar(grep { slurp($_->{out}) =~ /^ok/ } @held), 6, 'six instances of users');
like(call(7000)->{err}, qr/the users of this host have as many instances as vfun\.conf allows them together/, 'and no seventh of eight');
is(vfun('call', 'factorial', 5)->{out}, "120\n", 'but for root');
kill 'KILL', map { $_->{pid} } @held;
finish($_, 10) for @held;
ok(wait_until(10, sub { vfun('status')->{out} !~ /factorial/ }), 'all gone');

ok(run(['ls', tmp('d/service')], as => [7000, 7000])->{status}, "records are not for users, who don't see others' instances");

# Connections and grants: the further uids of one user are one
my @many = map { start([client(), 'conns', 'hold'], as => [$_, $_]) } map { 300000 + $_ } 1 .. 12;
ok(wait_until(60, sub { 12 == grep { slurp($_->{out}) =~ /^ok/ } @many }), 'twelve uids of one user with as many connections as they get');
my $conns = 0;
$conns += slurp($_->{out}) =~ /^ok (\d+) connections/ ? $1 : 0 for @many;
is($conns, 128, 'are one user with 128');
is(call(7000)->{out}, "120\n", 'another is served');
kill 'KILL', map { $_->{pid} } @many;
finish($_, 10) for @many;
@many = map { start([client(), 'grants', 'hold'], as => [$_, $_]) } map { 300000 + $_ } 1 .. 12;
ok(wait_until(60, sub { 12 == grep { slurp($_->{out}) =~ /^ok/ } @many }), 'with as many grants');
my $grants = 0;
$grants += slurp($_->{out}) =~ /^ok (\d+) grants/ ? $1 : 0 for @many;
is($grants, 64, 'have 64');
kill 'KILL', map { $_->{pid} } @many;
finish($_, 10) for @many;

# Processes of nobody, and of everybody, who would end the engine
my ($engine) = grep { $_->[1] eq 'vfun-engine' } descendants();
like(slurp("/proc/$engine->[0]/status"), qr/^Uid:(?:\t@{[$base + 65]}){4}$/m, 'the engine has a uid of its own');
for my $uid (65534, 3000, 1) {
	my $r = run(['sh', '-c', 'kill -9 "$0"', $engine->[0]], as => [$uid, $uid]);
	like($r->{err}, qr/not permitted/, "uid $uid may not kill it");
}

# Another vfund, which wants some of the same uids, and one that takes others
my $other = sub { my ($n) = @_; return run([$VFUN, 'daemon', '-c', spew(tmp('o.conf'), $conf =~ s/^uid-base = .*/uid-base = $n/mr), '--run', tmp('o')]); };
for my $n ($base, $base + 65535, $base - 65535) {
	my $r = $other->($n);
	is($r->{status}, 2, "another with the uids from $n: refused");
	like($r->{err}, qr/uid-base: another vfund, pid $job->{pid}, has uids from $n to/, 'with the pid of the one that has them');
}
my @more = map { Vfun->new } 1, 2;
ok($_->up, 'another that may choose starts') for @more;
my %first;
for my $d (@more) {
	my ($e) = grep { $_->[1] eq 'vfun-engine' } descendants($d->{job}{pid});
	my ($uid) = slurp("/proc/$e->[0]/status") =~ /^Uid:\t(\d+)/m;
	ok($uid >= 2000000065 && !$first{$uid}++, "its engine is uid $uid");
}
kill 'KILL', $more[0]{job}{pid};
finish($more[0]{job}, 10);
ok($more[0]->up && wait_until(20, sub { $more[0]->log =~ /ready: .*ready: /s }), 'one that was killed leaves its uids');
is_deeply([$_->down], [], 'it stops and leaves nothing') for @more;
ends($job);

# Only for a group
$job = daemon(tmp('g'), $user->('group', 'few') =~ s/^;user = vfun/user = vfun/mr);
is(sprintf('%o %d %d', (stat tmp('g/control'))[2] & 0777, (stat _)[4, 5]), '660 0 5000', "the socket is the group's");
is(call(1000, 5000)->{out}, "120\n", 'one of the group');
like(call(1000)->{err}, qr/this user may not talk to vfund/, 'another');
is(vfun('call', 'factorial', 5)->{out}, "120\n", 'root');
($engine) = grep { $_->[1] eq 'vfun-engine' } descendants();
like(slurp("/proc/$engine->[0]/status"), qr/^Uid:\t777\t.*^Gid:\t778\t/ms, 'and the engine is the user that was named');
ends($job);

done_testing();
