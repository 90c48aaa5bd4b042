#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# man.t - every role has a page, and mandoc has no complaint about any
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('mandoc');

my @pages = glob 'man/*.[1-9]';
cmp_ok(scalar @pages, '>', 0, 'there are pages');
for my $page (@pages) {
	my $r = run(['mandoc', '-T', 'lint', '-W', 'warning', $page]);
	is($r->{status}, 0, $page) or diag($r->{out} . $r->{err});
	is(run(['mandoc', '-T', 'utf8', '-W', 'error', $page])->{status}, 0, "$page can be shown");
}

# A role's page is its own, or it has a section in a page that says so: `.Nm vfun Cm ROLE` or `.Nm vfun ROLE`.
my $text = join '', map { slurp($_) } @pages;
my %roles = map { $_ => 1 } vfun('--help')->{out} =~ /^  (\S+) /mg;
cmp_ok(scalar keys %roles, '>', 5, 'roles');
for my $role (sort keys %roles) {
	my $name = $role eq 'daemon' ? 'vfund' : "vfun-$role";
	ok((grep { m{/\Q$name\E\.[18]$} } @pages) || $text =~ /^\.Nm (?:vfun )?(?:Cm )?\Q$role\E\b/m, "$role is documented");
}

# What the pages name exists.
for my $see ($text =~ /^\.Xr (vfun\S* \d)/mg) {
	my ($name, $section) = split / /, $see;
	ok(-e "man/$name.$section", "Xr $see");
}

done_testing();
