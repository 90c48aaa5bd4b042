# SPDX-License-Identifier: MIT
#
# Man.pm - the examples of a manual page, as a reader would copy them
#
# What a display is, says the comment before it:
#	.\" file: NAME	a file
#	.\" run		commands
#	.\" out		what the commands before it say
package Man;

use strict;
use warnings;

use Exporter qw(import);
use Vfun;

our @EXPORT = qw(man_examples);

# A list of [what, name, text].
sub man_examples {
	my ($page) = @_;
	my $mdoc = slurp($page);
	my @shown;
	while ($mdoc =~ /^\.\\" (file|run|out)(?:: (\S+))?\n\.Bd .*\n((?s:.*?))^\.Ed$/mg) {
		my ($what, $name, $text) = ($1, $2 // '', $3);
		push @shown, [$what, $name, $text =~ s/\\&//gr =~ s/\\e/\\/gr =~ s/\\-/-/gr];
	}
	return @shown;
}

1;
