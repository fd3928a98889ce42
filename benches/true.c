/* The command of all launches. */
int main(void)
{
	return 0;
}
