#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# versions.t - what the tests run on is found and written down, the pages have it from there, and no test is about a version
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('tree');

# A copy of what is read and written.
my $dir = tmp('copy');
mkdir $_ or die "$_: $!" for $dir, "$dir/t", "$dir/t/lib", "$dir/build";
run(['cp', '-r', 'README.md', 'man', $dir]);
run(['cp', 't/lib/versions', 't/lib/kernel', "$dir/t/lib"]);
run(['cp', 't/versions', "$dir/t"]);
symlink(readlink($_) // Cwd::getcwd() . "/$_", "$dir/$_") for $TREE eq 'build/tree' ? $TREE : (), 'build/kernel';
my $tree = $TREE eq 'build/tree' ? $TREE : Cwd::abs_path($TREE);
sub versions { return run(['sh', '-c', 'cd "$1" && shift && t/lib/versions "$@"', 'sh', $dir, @_]); }

# Found
my $r = versions('build', $tree);
is($r->{status}, 0, 'the versions here') or diag($r->{err});
my $text = slurp("$dir/build/versions");
unlike($text, qr/^(?!\S+ \S+ \d[\w.]*$)/m, 'are lines of place, part and version') or diag($text);
like($text, qr/^tree $_ /m, "the tree's $_") for qw(guest-kernel libc libvirt qemu xrt);
my ($place) = grep { $_ ne 'tree' } $text =~ /^(\S+)/mg;
SKIP: {
	skip 'not a Debian', 5 if !-x '/usr/bin/dpkg-query';
	like($text, qr/^\Q$place\E $_ /m, "this machine's $_") for qw(gcc guest-kernel kernel libc qemu);
}
my ($qemu) = run(["$TREE/qemu", '--version'])->{out} =~ /version ([\d.]+)/;
like($text, qr/^tree qemu \Q$qemu\E$/m, 'as its programs say themselves');
for my $line (split /\n/, $text) {
	my (undef, $part, $version) = split ' ', $line;
	like($r->{out}, qr/\b\Q$part $version\E\b/, "$line: said");
}

# Written
my @pages = grep { slurp($_) =~ /versions: .*\{/ } 'README.md', glob 'man/*';
cmp_ok(scalar @pages, '>', 2, 'pages that have versions: ' . scalar @pages);
is(versions('--write')->{status}, 0, 'the pages are written from t/versions');
is(slurp("$dir/$_"), slurp($_), "$_ has what is there") for @pages;
my $other = $text =~ s/^(tree qemu) .*/$1 77.8/mr =~ s/^(\Q$place\E gcc) .*\n//mr;
is(versions('--write', spew(tmp('other'), $other))->{status}, 0, 'from another run');
for my $page (@pages) {
	my $was = slurp($page);
	my $new = $was =~ s/^((?:\.\\"|<!--) versions: .*\{tree qemu\}.*\n)(.*)/my ($c, $l) = ($1, $2); $c . $l =~ s{\b\Q$qemu\E\b}{77.8}r/gemr;
	is(slurp("$dir/$page"), $new, "$page has its version");
}
my $list = slurp("$dir/t/versions");
like($list, qr/^tree qemu 77\.8$/m, 'and t/versions');
unlike($list, qr/^\Q$place\E gcc /m, 'nothing is kept of a place that was there again');
like(versions('build', $tree)->{out}, qr/^The pages have other versions of these.*: .*tree qemu/m, 'what they have otherwise is said');
$r = versions('--write', spew(tmp('bad'), "tree libc 2\n"));
isnt($r->{status}, 0, 'a version that a page wants and nobody has');
like($r->{err}, qr/^versions: \S+: t\/versions has no 'tree \S+'$/m, 'is named');

# No test is about a version that it doesn't make itself.
for my $test (glob 't/*.t') {
	my @lines = grep { !/^\s*#/ && /\b(?:libvirt|QEMU|XRT|Linux|[Kk]ernel|gcc|clang|glibc|Python|numpy|Spin|Debian)[- ]\d/ } split /\n/, slurp($test);
	is_deeply(\@lines, [], $test);
}
done_testing();
