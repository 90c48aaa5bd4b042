#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# function.t - the walk of vfun-function(7), its files and commands as they are printed, in a folder of its own: with what
# `make install` brings, as the /usr/local, /etc and /run of a mount namespace
use strict;
use warnings;
use lib 't/lib';
use Cwd qw(abs_path);
use Man;
use Test::More;
use Vfun;

requires('root', 'qemu', 'kernel', 'tree');

ok(make('install', 'DESTDIR=' . tmp('root')), 'make install') or BAIL_OUT('no installation');
my @shown = man_examples('man/vfun-function.7');
cmp_ok(scalar(grep { $_->[0] eq 'run' } @shown), '>=', 8, 'there are commands');

# Each block of commands is a shell's; what they say is kept. Where the machine has no cloud kernel in /boot, `vfun vm` is
# told of the one of the tests.
mkdir tmp($_) for qw(walk etc);
my $kernel = run(['t/lib/kernel', 'build/kernel'])->{out} =~ s/\n//r;
$kernel = abs_path($kernel);
my $vm = 'vfun() { if [ "$1" = vm ]; then shift; command vfun vm --kernel ' . join(' ', $kernel, map { s/^\Q$BUILD\E/abs_path($BUILD)/er } guest_vfun()) . ' "$@"; else command vfun "$@"; fi; }';
my $script = "set -e\nmount -t tmpfs none @{[tmp('etc')]}\nmkdir @{[tmp('etc/up')]} @{[tmp('etc/work')]}\n"
	. "mount -t overlay -o lowerdir=/etc,upperdir=@{[tmp('etc/up')]},workdir=@{[tmp('etc/work')]} none /etc\n"
	. "mount --bind @{[tmp('root/usr/local')]} /usr/local\nmount -t tmpfs none /run\ncd @{[tmp('walk')]}\nexport PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
my (@said, $block);
for my $i (0 .. $#shown) {
	my ($what, $name, $text) = @{ $shown[$i] };
	$script .= "cat >$name <<'END-OF-$name'\n${text}END-OF-$name\n" if $what eq 'file';
	push @said, [$text, ++$block, ''] if $what eq 'run';
	$said[-1][2] = $text if $what eq 'out';
	$script .= "cat >block.$block <<'END-OF-BLOCK'\n$vm\n${text}END-OF-BLOCK\nsh -e block.$block >block.$block.out 2>block.$block.err </dev/null || echo \$? >>block.$block.err\n"
		if $what eq 'run';
}
spew(tmp('script'), $script);
my $start = time;
my $r = run(['unshare', '-m', '--propagation', 'private', 'sh', tmp('script')], timeout => 240);
is($r->{status}, 0, 'the walk') or diag($r->{err});
for (@said) {
	my ($command, $n, $out) = @$_;
	my ($first) = $command =~ /([^\n]*)\n\z/;
	is(slurp(tmp("walk/block.$n.out")), $out, $first) or diag(slurp(tmp("walk/block.$n.err")), slurp(tmp('walk/vfund.log')));
	unlike(slurp(tmp("walk/block.$n.err")), qr/^\d+$/m, 'which succeeds') or diag(slurp(tmp("walk/block.$n.err")));
}
note("the walk took ", time - $start, " s");

# vfund was left running, as a reader would.
my @vfund = grep { $_->[1] eq 'vfund' } descendants();
cmp_ok(scalar @vfund, '>=', 1, 'vfund runs');
kill 'TERM', map { $_->[0] } @vfund;
is_deeply([still(qr/./)], [], 'and stops, and leaves nothing');
done_testing();
