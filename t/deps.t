#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# deps.t - what is missing is installed for root, and named for others, who get the line to type: make demo, make check
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('user');

# A copy of what says it, for another user to read, and a Debian on which two packages are missing.
my $dir = tmp('tree');
mkdir $_ or die "$_: $!" for $dir, "$dir/bin", "$dir/t", "$dir/t/lib";
chmod 0777, $dir;
run(['cp', 'Makefile', $dir]);
run(['cp', 't/lib/deps', "$dir/t/lib"]);
my %tool = (
	'dpkg-query' => "for p; do :; done\ncase \$p in\nkmod|nettle-dev) [ -e '$dir/all' ] && echo installed ;;\n*) echo installed ;;\nesac\n",
	'apt-get' => "echo \"\$@\" >>'$dir/apt'\n");
for my $name (sort keys %tool) {
	chmod 0755, spew("$dir/bin/$name", "#!/bin/sh\n$tool{$name}");
}
my @env = (env => { PATH => "$dir/bin:$ENV{PATH}", MAKEFLAGS => '' });
my @as = $> == 0 ? (as => [65534, 65534]) : ();

for my $purpose ('demo', 'check') {
	my $r = run(['make', '-s', '-C', $dir, $purpose], @env, @as);
	isnt($r->{status}, 0, "make $purpose of an ordinary user");
	like($r->{err}, qr/^vfun \($purpose\): these Debian packages are missing; as root, type\n  apt-get install --no-install-recommends nettle-dev kmod$/m,
		'names the packages, with the line to type');
	is($r->{out}, '', 'and goes no further');
	ok(!-e "$dir/apt", 'nor installs anything');
}
my $r = run(["$dir/t/lib/deps", 'build'], @env, @as);
is($r->{status}, 1, 'what building takes');
like($r->{err}, qr/recommends nettle-dev$/m, 'is less');
is(run(["$dir/t/lib/deps", 'nonsense'], @env, @as)->{status}, 2, 'an unknown purpose');

SKIP: {
	skip 'not root', 5 if $> != 0;
	$r = run(["$dir/t/lib/deps", '-n', 'demo'], @env);
	is($r->{status}, 1, 'deps -n of root');
	ok(!-e "$dir/apt", 'only names them as well');
	$r = run(["$dir/t/lib/deps", 'demo'], @env);
	is($r->{status}, 0, 'deps of root');
	like($r->{out}, qr/^Installing, for 'make demo': nettle-dev kmod$/m, 'says what it installs');
	is(slurp("$dir/apt"), "update\ninstall -y --no-install-recommends nettle-dev kmod\n", 'and does it');
}
spew("$dir/all", '');
$r = run(["$dir/t/lib/deps", 'check'], @env, @as);
is("$r->{status}$r->{out}$r->{err}", '0', 'where nothing is missing nothing is said');
done_testing();
