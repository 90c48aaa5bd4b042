#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# user.t - an ordinary user's own vfund: calls on the host and from a VM, several side by side, nothing left
use strict;
use warnings;
use lib 't/lib';
use File::Basename qw(dirname);
use Test::More;
use Vfun;

requires('user', 'qemu', 'kernel');

my @as = $> == 0 ? (as => [65534, 65534]) : ();
my $dir = tmp('u');
mkdir $dir;
chmod 0777, $dir;
# What the user runs must be readable for him.
run(['cp', $VFUN, "$dir/vfun"]);
my @image = guest_args('own');
run(['cp', $image[1], "$dir/vmlinuz"]);
# A kernel that was unpacked from its package has its modules beside it.
my @modules = -d dirname($image[1]) . '/lib/modules' ? ('--modules', $dir) : ();
run(['cp', '-rL', dirname($image[1]) . '/lib', "$dir/lib"]) if @modules;
chmod 0755, "$dir/vfun";
chmod 0644, "$dir/vmlinuz";
my @guest = guest_vfun();
@guest = ('--add', "$dir/guest:/vfun") if @guest && run(['cp', "$BUILD/guest/vfun", "$dir/guest"])->{status} == 0;
spew("$dir/vfun.conf", slurp('vfun.conf'));

my %job;
for my $n (1, 2) {
	$job{$n} = start(["$dir/vfun", 'daemon', '-c', "$dir/vfun.conf", '--run', "$dir/r$n"], @as, log => "$dir/log$n");
}
for my $n (1, 2) {
	ok(wait_until(10, sub { -S "$dir/r$n/control" }), "vfund $n of an ordinary user") or diag(slurp("$dir/log$n"));
	ok(wait_until(10, sub { slurp("$dir/log$n") =~ /ready: user mode/ }), 'in user mode');
	my $r = run(["$dir/vfun", 'call', '--run', "$dir/r$n", 'factorial', 20], @as);
	is($r->{out}, "2432902008176640000\n", 'a call') or diag($r->{err}, slurp("$dir/log$n"));
}
my $r = run(["$dir/vfun", 'status'], @as, env => { VFUN_RUN_DIR => "$dir/r1" });
like($r->{out}, qr/administrator/, 'the user is the administrator of his own');
$r = run(["$dir/vfun", 'daemon', '-c', "$dir/vfun.conf", '--run', "$dir/r1"], @as);
is($r->{status}, 8, 'a third in the same folder is refused');
like($r->{err}, qr/another vfund serves/, 'since there is another');

$r = run(["$dir/vfun", 'vm', '--run', "$dir/r1", '--kernel', "$dir/vmlinuz", @modules, @guest, '--timeout', 100, '--', 'vfun', 'call', '-v', 'factorial', 51],
	@as, timeout => 120);
is($r->{out}, "1551118753287382280224243016469303211063259720016986112000000000000\n", 'a call from a VM of this user')
	or diag($r->{err}, slurp("$dir/log1"));
like($r->{err}, qr/path ivshmem$/m, 'through memory that it shares with the VM');

# A folder that is somebody's is not taken for a run folder.
sub refuses {
	my ($what, $why, $mode, $owner, %o) = @_;
	mkdir "$dir/mine";
	chown $owner, $owner, "$dir/mine" if $> == 0;
	chmod $mode, "$dir/mine";
	spew("$dir/mine/control", 'mine') if $o{full};
	symlink 'mine', "$dir/link" if $o{run};
	my $d = run(["$dir/vfun", 'daemon', '-c', "$dir/vfun.conf", '--run', "$dir/" . ($o{run} // 'mine')], $o{root} ? () : @as, timeout => 20);
	is($d->{status}, 8, "$what: refused");
	like($d->{err}, $why, 'with the reason');
	is_deeply([glob "$dir/mine/*"], $o{full} ? ["$dir/mine/control"] : [], 'and left alone');
	unlink "$dir/mine/control", "$dir/link";
	rmdir "$dir/mine" or diag($!);
	return;
}
my $user = $> || 65534;
refuses('a folder with files of its own', qr/neither empty nor a run folder/, 0755, $user, full => 1);
refuses('a folder that others may write to', qr{/mine can't be the run folder: others may write to it$}m, $_, $user) for 0775, 0757;
refuses('a link to a folder', qr{not a folder, or a link to one: \S+/link: }, 0755, $user, run => 'link');
if ($> == 0) {
	refuses("a folder of root's, for a user", qr{/mine can't be the run folder: it belongs to somebody else$}m, 0777, 0);
	refuses("a user's folder, for root", qr{/mine can't be the run folder: it belongs to somebody else$}m, 0755, 65534, root => 1);
}

# Few descriptors
my $few = start(['prlimit', '--nofile=256', "$dir/vfun", 'daemon', '-c', "$dir/vfun.conf", '--run', "$dir/few"], @as, log => "$dir/few.log");
ok(wait_until(10, sub { -S "$dir/few/control" }), 'a vfund that may open 256 files');
like(slurp("$dir/few.log"), qr/only 256 files/, 'says so');
is(run(["$dir/vfun", 'call', '--run', "$dir/few", 'factorial', 5], @as)->{out}, "120\n", 'and works');
kill 'TERM', $few->{pid};
is(finish($few, 10)->{status}, 0, 'and stops');

for my $n (1, 2) {
	kill 'TERM', $job{$n}{pid};
	is(finish($job{$n}, 10)->{status}, 0, "vfund $n stops");
	ok(!-e "$dir/r$n", 'and leaves nothing');
}
is_deeply([still(qr/./)], [], 'no process either');

# Root's vfund: others use it, as themselves, and administer nothing.
SKIP: {
	skip 'not root', 5 if $> != 0;
	my $d = Vfun->new;
	ok($d->up, 'a vfund in system mode');
	my %env = (env => { VFUN_RUN_DIR => $d->{run} });
	my $mine = start([client(), 'hold', 'factorial', 'host'], %env);
	wait_until(10, sub { slurp($mine->{out}) =~ /^ok/ });
	my ($i) = slurp($mine->{out}) =~ /instance (\d+)/;
	is(run(["$dir/vfun", 'call', 'factorial', 5], @as, %env)->{out}, "120\n", "an ordinary user's call");
	$r = run(["$dir/vfun", 'status'], @as, %env);
	like($r->{out}, qr/ 0 instances; you are uid-65534$/m, "sees nothing of root's");
	is(run(["$dir/vfun", 'release', $i], @as, %env)->{status}, 3, 'and releases nothing');
	my ($service) = grep { $_->[1] eq 'vfun-service' } descendants();
	like(slurp("/proc/$service->[0]/status"), qr/^Uid:\t(?!0\t|65534)(\d+)\t\1\t\1\t\1$/m, 'the service has a uid of its own');
	kill 'KILL', $mine->{pid};
	finish($mine, 5);
	is_deeply([$d->down], [], 'it stops and leaves nothing');
}
done_testing();
