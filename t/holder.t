#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# holder.t - QEMU's user kills what holds a domain's ivshmem memory, again and again: its path never leads elsewhere, and
# comes back
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('root');

# A domain that vfund remembers: messages of virtd.h. Its libvirt doesn't answer, so that nothing else is said.
my $uuid = '11111111-2222-3333-4444-555555555555';
my $user = 64055;

sub message {
	my %m = (kind => 2, name => '', uuid => '', ivshmem => 0, text => '', @_);
	return pack 'V4 Q2 V2 a40 a64 a512 a256 a256 a256', $m{kind}, 0, 0, 0, 0, $m{ivshmem}, $user, $user, @m{qw(uuid name)}, '', $m{text}, '', '';
}

mkdir tmp('state');
spew(tmp('state/domains'), message(kind => 1, text => 'vfun domains 2') . message(name => 'web', uuid => $uuid, ivshmem => 2 << 20) . message(kind => 3));
chmod 0600, tmp('state/domains');
my $d = Vfun->new(conf => slurp('vfun.conf') . "\n[libvirt]\nconnect = nosuch:///\nuser = $user\ngroup = $user\nfunctions = factorial\nmemory = 64M\n");
ok($d->up('--state', tmp('state')), 'vfund') or BAIL_OUT($d->log);
my $link = "$d->{run}/vmcli/$uuid/ivshmem";

# Its pid, once QEMU may come.
sub holder {
	my ($not) = @_;
	my $pid;
	wait_until(30, sub { my ($h) = grep { $_->[1] eq 'vfun-hold' && $_->[0] != ($not // 0) } descendants(); $pid = $h && (readlink($link) // '') eq "/proc/$h->[0]/fd/3" ? $h->[0] : 0 });
	return $pid;
}

my $pid = holder();
ok($pid, 'its memory has a path') or diag($d->log);
for my $time (1 .. 3) {
	is(run(['sh', '-c', 'kill -9 "$0"', $pid], as => [$user, $user])->{status}, 0, "what holds it is killed, time $time");
	ok(wait_until(10, sub { (readlink($link) // '') ne "/proc/$pid/fd/3" }), 'the path does not lead to where it was');
	my $next = holder($pid);
	ok($next, 'and there is another') or diag($d->log);
	$pid = $next;
}
my $opens = run(['sh', '-c', 'exec 3<>"$0" && echo yes', $link], as => [$user, $user]);
is($opens->{out}, "yes\n", "QEMU's user opens it") or diag($opens->{err});
like($d->log, qr/has ended at once: started again in 1 s.*has ended at once: started again in 2 s/s, 'after a while that gets longer');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
is_deeply([still(qr/vfun/)], [], 'no process either');
done_testing();
