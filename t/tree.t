#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# tree.t - t/lib/tree makes its Debian again when the archive has newer packages, and else uses what there is
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

# A tree, and a machine on which nothing can be made: programs that write down how they were called.
my $dir = tmp('tree');
mkdir $_ or die "$_: $!" for $dir, "$dir/etc", tmp('bin');
my $policy = "qemu-system-x86:\n  Installed: 1\n  Candidate: 1.5\nlibvirt-daemon:\n  Candidate: 9\n";
my $candidates = "qemu-system-x86: 1.5\nlibvirt-daemon: 9\n";
my ($recipe) = slurp('t/lib/tree') =~ /^recipe=(\d+)$/m;
my %tool = (
	id => 'echo ${WHO:-0}',
	'apt-get' => ':', 'apt-config' => ':',
	debootstrap => 'echo "E: nothing here" >&2; exit 1',
	chroot => 'case "$*" in *update) exit ${FAILS:-0} ;; *policy*) cat ' . tmp('policy') . ' ;; esac');
chmod 0755, spew(tmp("bin/$_"), "#!/bin/sh\necho \"$_ \$*\" >>" . tmp('called') . "\n$tool{$_}\n") for keys %tool;

# The run, what it called, and what became of the tree.
sub tree {
	my ($has, $stamp, %env) = @_;
	spew(tmp('policy'), $has);
	spew("$dir/.candidates", $candidates);
	spew("$dir/.recipe", "$stamp\n");
	spew(tmp('called'), '');
	my $r = run(['t/lib/tree', $dir], env => { PATH => tmp('bin') . ":$ENV{PATH}", %env });
	my $made = slurp(tmp('called')) =~ /^debootstrap .*\btrixie\b/m ? 1 : 0;
	ok(-e "$dir/.recipe" && !-e "$dir.new", 'the tree is there, and no half one');
	return ($r, $made);
}

my ($r, $made) = tree($policy, $recipe);
is("$r->{status}$r->{out}$r->{err}", '0', 'the archive has what the tree was made of: nothing is said') or diag(slurp(tmp('called')));
ok(!$made, 'nor made');

($r, $made) = tree($policy =~ s/1\.5/2.0/r, $recipe);
ok($made, 'a newer package: it is made again');
like($r->{out}, qr/^The archive has moved on since .*\n  < qemu-system-x86: 1\.5\n  > qemu-system-x86: 2\.0\n/, 'what is newer is said');
is($r->{status}, 0, 'what can be used remains');
like($r->{out}, qr/^Using \Q$dir\E as it is$/m, 'as is said, since the new one could not be made');
like($r->{err}, qr/E: nothing here\ntree: 'debootstrap' failed/, 'with the reason');

for my $case (['it does not answer', $policy, FAILS => 100], ['it has none', $policy =~ s/1\.5/(none)/r]) {
	my ($what, $has, %env) = @$case;
	($r, $made) = tree($has, $recipe, %env);
	is($r->{status}, 0, "the archive can't be asked: $what");
	like($r->{out}, qr/^The archive can't be asked what it has: using \Q$dir\E as it is\n\z/, 'said');
	ok(!$made, 'nothing is made');
}

($r, $made) = tree($policy, $recipe, WHO => 1000);
is("$r->{status}$r->{out}$r->{err}", '0', 'an ordinary user has what is there');
unlike(slurp(tmp('called')), qr/^chroot/m, 'and asks nobody');

($r, $made) = tree($policy, $recipe - 1);
ok($made, 'another recipe: it is made again');
isnt($r->{status}, 0, 'or there is none');
($r, $made) = tree($policy, $recipe - 1, WHO => 1000);
ok(!$made, 'not by an ordinary user');
like($r->{err}, qr/is made by root: run '.*' as root once$/m, 'who is told');
done_testing();
