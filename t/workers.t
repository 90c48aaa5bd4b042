#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# workers.t - batches of calls on services with one thread and with several: every answer right, whoever overtakes whom
use strict;
use warnings;
use lib 't/lib';
use Digest::SHA qw(sha256_hex);
use Test::More;
use Vfun;

my $conf = "[function factorial]\nslots = 256\nworkers = 4\n[function zstd]\nworkers = 2\n[function sha256]\nworkers = 2\n"
	. "[function fibonacci]\nslots = 256\nspin = 0\n[host]\nfunctions = factorial zstd sha256 fibonacci\n";
my $d = Vfun->new(conf => $conf);
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};

sub good {
	my ($what, $text, $args, %opt) = @_;
	my $r = run([client(), @$args], timeout => 90, %opt);
	is($r->{status}, 0, $what) or diag($r->{out}, $r->{err}, $d->log);
	like($r->{out}, $text, 'as wanted');
}

good('four workers, 64 slots', qr/^ok 5000 calls, 64 slots, 4 workers/, [qw(batch host 64 5000)]);
good('256 slots', qr/^ok 20000 calls, 256 slots, 4 workers/, [qw(batch host 256 20000)]);
good('as many workers as slots', qr/^ok 1000 calls, 4 slots, 4 workers/, [qw(batch host 4 1000)]);
good('fewer slots than workers', qr/^ok 1000 calls, 2 slots, 2 workers/, [qw(batch host 2 1000)]);
good('one slot', qr/^ok 300 calls, 1 slots, 1 workers/, [qw(batch host 1 300)]);
good('a client that does not spin', qr/^ok 3000 calls/, [qw(batch host 64 3000)], env => { VFUN_SPIN => 0 });
good('a client that spins long', qr/^ok 3000 calls/, [qw(batch host 64 3000)], env => { VFUN_SPIN => 100000 });
good('all of a batch', qr/^ok 10 batches, 4 workers/, [qw(gather host 10)]);
good('tickets taken one by one', qr/^ok 20032 calls, 64/, [qw(inflight host 64 20000)]);
good('bulk data side by side', qr/^ok 512 calls, 64 slots, 2 workers/, [qw(bulk host 64 512)]);
good('set, get, rst', qr/^ok/, [qw(setget host)]);
good('insane slots', qr/^ok path host: cut-off/, [qw(insane host)]);
my $r = start([client(), qw(batch host 64 3000)]);
good('two clients at a time', qr/^ok 3000 calls/, [qw(batch host 64 3000)]);
is(finish($r, 90)->{status}, 0, 'the other as well');
spew(tmp('data'), 'vfun' x 500_000);
is(vfun('call', 'sha256', tmp('data'))->{out}, sha256_hex('vfun' x 500_000) . "\n", 'sha256 of two workers');
is(vfun('call', 'fibonacci', 90)->{out}, "2880067194370816120\n", 'a service that does not spin');

# Large regions: in huge pages where the kernel has some for memfds, else not, and right either way
spew(tmp('data'), 'vfun' x (5 << 20));
is(vfun('call', 'sha256', tmp('data'))->{out}, sha256_hex(slurp(tmp('data'))) . "\n", 'sha256 of 20 MiB');
my ($huge) = $d->log =~ /active, pid \d+, 2\d{7} bytes(, \d+ of them in huge pages)?$/m;
is(defined $huge ? 1 : 0, slurp('/sys/kernel/mm/transparent_hugepage/shmem_enabled') =~ /\[(?:advise|within_size|always|force)\]/ ? 1 : 0,
	'the log tells of huge pages where there are any');

# As tight as with one thread
my $held = start([client(), 'hold', 'factorial', 'host', 4]);
ok(wait_until(10, sub { slurp($held->{out}) =~ /^ok/ }), 'an instance is held') or diag(slurp($held->{out}));
my ($p) = grep { $_->[1] eq 'vfun-service' } descendants();
my @threads = glob "/proc/$p->[0]/task/*";
is(scalar @threads, 4, 'four threads');
for my $t (@threads) {
	my $status = slurp("$t/status");
	like($status, qr/^Seccomp_filters:\t2$/m, 'each with both filters');
	like($status, qr/^NoNewPrivs:\t1$/m, 'no new privileges');
	like($status, qr/^Cap$_:\t0{16}$/m, "$_ empty") for qw(Inh Prm Eff Bnd Amb);
}
like(slurp("/proc/$p->[0]/limits"), qr/^Max processes +0 +0 /m, 'and no further one');
kill 'KILL', $held->{pid};
finish($held, 5);

for my $case (["pingpong]\nworkers = 2", qr/can have only one/], ["factorial]\nworkers = 3", qr/not a power of two/], ["factorial]\nworkers = 32", qr/not between/]) {
	$r = vfun('daemon', '-n', '-c', spew(tmp('x.conf'), "[function $case->[0]\n"));
	like($r->{err}, $case->[1], 'a fault: ' . $case->[0] =~ s/\n/ /r);
}

unlike($d->log, qr/signal/, 'no service died of anything');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
